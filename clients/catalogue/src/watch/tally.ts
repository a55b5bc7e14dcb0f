/** What one pass of a watch did, as lines; what fails goes to the file of failures as well. */
import { appendFileSync } from 'node:fs';
import type { Failure, Observer } from '../job.ts';
import { shown, type Totals } from '../report.ts';

export class Tally implements Observer {
  #counts = { stored: 0, skipped: 0, failed: 0, due: 0, repeated: 0 };

  constructor(
    readonly total: number,
    readonly failuresFile: string,
    readonly note: (line: string) => void,
    readonly onFailure: (failure: Failure) => void,
  ) {}

  stored(count: number): void {
    this.#counts.stored += count;
  }

  skipped(): void {
    this.#counts.skipped++;
  }

  repeated(): void {
    this.#counts.repeated++;
  }

  due(): void {
    this.#counts.due++;
  }

  failed(failure: Failure): void {
    this.#counts.failed++;
    const { id, location, code, message } = failure;
    this.note(`failed: ${shown(id === '' ? location : id)}: ${code}: ${shown(message)}`);
    appendFileSync(this.failuresFile, `${JSON.stringify(failure)}\n`);
    this.onFailure(failure);
  }

  close(): Totals {
    return { total: this.total, ...this.#counts };
  }
}
