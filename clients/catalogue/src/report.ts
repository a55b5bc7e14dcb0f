/** What a person sees while the job runs: a bar with rate and remaining time, notes, and the failures in a file. */
import { rmSync } from 'node:fs';
import { MultiBar, type SingleBar } from 'cli-progress';
import { Counts, type Totals } from './counts.ts';
import type { Failure, Observer } from './job.ts';

const PLAIN_INTERVAL_MS = 10_000;
const RATE_WINDOW_MS = 30_000;
const FAILURES_SHOWN = 20;

/** Images a second over the last half minute, and from that the time that is left. */
export class Rate {
  readonly #samples: { readonly at: number; readonly done: number }[] = [];

  add(done: number, at: number = performance.now()): void {
    this.#samples.push({ at, done });
    while ((this.#samples[1]?.at ?? at) < at - RATE_WINDOW_MS) this.#samples.shift();
  }

  perSecond(): number {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    if (first === undefined || last === undefined || last.at === first.at) return 0;
    return ((last.done - first.done) * 1000) / (last.at - first.at);
  }

  remaining(left: number): string {
    const rate = this.perSecond();
    if (rate === 0) return left === 0 ? '0 s' : '?';
    const seconds = Math.round(left / rate);
    if (seconds < 60) return `${seconds} s`;
    const minutes = Math.round(seconds / 60);
    return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }
}

export class Report extends Counts implements Observer {
  readonly #out: NodeJS.WriteStream;
  readonly #rate = new Rate();
  readonly #shown: Failure[] = [];
  #multi: MultiBar | undefined;
  #bar: SingleBar | undefined;
  #ticker: NodeJS.Timeout;

  constructor(
    total: number,
    failuresFile: string | undefined,
    out: NodeJS.WriteStream = process.stderr,
  ) {
    super(total, failuresFile);
    this.#out = out;
    if (failuresFile !== undefined) rmSync(failuresFile, { force: true });
    this.#rate.add(0);
    if (out.isTTY) {
      const format = '{bar} {percentage}% | {value}/{total} | {rate} images/s | {remaining} left | {failed} failed';
      this.#multi = new MultiBar({ format, stream: out, hideCursor: true, barsize: 24, fps: 5 });
      this.#bar = this.#multi.create(total, 0, this.#payload());
    }
    this.#ticker = setInterval(() => this.#tick(), out.isTTY ? 500 : PLAIN_INTERVAL_MS);
    this.#ticker.unref();
  }

  override failed(failure: Failure): void {
    if (this.#shown.length < FAILURES_SHOWN) this.#shown.push(failure);
    super.failed(failure);
  }

  /** One line above the bar. */
  note(line: string): void {
    if (this.#multi === undefined) this.#out.write(`${line}\n`);
    else this.#multi.log(`${line}\n`);
  }

  /** Ends the bar and lists what failed. */
  close(): Totals {
    clearInterval(this.#ticker);
    this.#tick();
    this.#multi?.stop();
    const { failed } = this.counts;
    for (const { id, location, code, message } of this.#shown) {
      this.#out.write(`failed: ${shown(id === '' ? location : id)}: ${code}: ${shown(message)}\n`);
    }
    if (failed > this.#shown.length) this.#out.write(`... and ${failed - this.#shown.length} more\n`);
    if (failed > 0 && this.failuresFile !== undefined) this.#out.write(`All failures are in ${this.failuresFile}\n`);
    return this.totals;
  }

  #done(): number {
    const { due, failed, repeated, skipped, stored } = this.counts;
    return stored + skipped + failed + due + repeated;
  }

  #payload(): Record<string, unknown> {
    const left = Math.max(0, this.total - this.#done());
    return { rate: this.#rate.perSecond().toFixed(1), remaining: this.#rate.remaining(left), failed: this.counts.failed };
  }

  #tick(): void {
    this.#rate.add(this.#done());
    const { rate, remaining, failed } = this.#payload();
    if (this.#bar === undefined) {
      this.#out.write(`${this.#done()}/${this.total} | ${rate} images/s | ${remaining} left | ${failed} failed\n`);
    } else this.#bar.update(this.#done(), this.#payload());
  }
}

const LONGEST_SHOWN = 200;

/** On one line of a terminal: an id may hold anything. */
export function shown(text: string): string {
  const cut = text.length > LONGEST_SHOWN ? `${text.slice(0, LONGEST_SHOWN)}...` : text;
  return cut.replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Surrogate}]/gu, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
