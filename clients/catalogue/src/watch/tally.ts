/** What one pass of a watch did, as lines; what fails goes to the file of failures as well. */
import { Counts, type Totals } from '../counts.ts';
import type { Failure, Observer } from '../job.ts';
import { shown } from '../report.ts';

export class Tally extends Counts implements Observer {
  constructor(
    total: number,
    failuresFile: string,
    readonly note: (line: string) => void,
    readonly onFailure: (failure: Failure) => void,
  ) {
    super(total, failuresFile);
  }

  override failed(failure: Failure): void {
    const { id, location, code, message } = failure;
    this.note(`failed: ${shown(id === '' ? location : id)}: ${code}: ${shown(message)}`);
    super.failed(failure);
    this.onFailure(failure);
  }

  close(): Totals {
    return this.totals;
  }
}
