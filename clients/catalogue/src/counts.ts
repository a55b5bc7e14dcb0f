/** How many entries of a job came to which end; each that fails is a line of the file of failures. Says nothing. */
import { appendFileSync } from 'node:fs';
import type { Failure } from './job.ts';

export interface Totals {
  readonly total: number;
  readonly stored: number;
  readonly skipped: number;
  readonly failed: number;
  readonly due: number;
  readonly repeated: number;
}

export class Counts {
  protected readonly counts = { stored: 0, skipped: 0, failed: 0, due: 0, repeated: 0 };

  constructor(
    readonly total: number,
    /** Made at the first failure, so after a run without any it is not there. Undefined: no file. */
    readonly failuresFile: string | undefined,
  ) {}

  stored(count: number): void {
    this.counts.stored += count;
  }

  skipped(): void {
    this.counts.skipped++;
  }

  repeated(): void {
    this.counts.repeated++;
  }

  due(): void {
    this.counts.due++;
  }

  failed(failure: Failure): void {
    this.counts.failed++;
    if (this.failuresFile !== undefined) appendFileSync(this.failuresFile, `${JSON.stringify(failure)}\n`);
  }

  get totals(): Totals {
    return { total: this.total, ...this.counts };
  }
}
