/** How far the database is with something that takes long: a bar on a terminal, else a line now and then. Knows no table. */
import { SingleBar } from 'cli-progress';

const PLAIN_INTERVAL_MS = 10_000;

export class Progress {
  readonly #bar: SingleBar | undefined;
  #lastLine = performance.now();

  constructor(
    readonly title: string,
    readonly out: NodeJS.WriteStream = process.stderr,
    readonly lineEveryMs = PLAIN_INTERVAL_MS,
  ) {
    if (!out.isTTY) return;
    this.#bar = new SingleBar({ format: '{title} {bar} {percentage}% | {phase}', stream: out, hideCursor: true, barsize: 24, fps: 5 });
    this.#bar.start(100, 0, { title, phase: '' });
  }

  /** `share` is what is done of this phase, from 0 to 1. */
  update(share: number, phase: string): void {
    const percent = Math.floor(100 * share);
    if (this.#bar !== undefined) this.#bar.update(percent, { title: this.title, phase });
    else if (performance.now() - this.#lastLine >= this.lineEveryMs) {
      this.out.write(`${this.title}: ${percent} % | ${phase}\n`);
      this.#lastLine = performance.now();
    }
  }

  close(): void {
    this.#bar?.stop();
  }
}
