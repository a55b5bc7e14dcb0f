/** What `duplicates` is told. */
import { RefusedError } from '../errors.ts';
import type { Values } from './flags.ts';
import { count, type SharedOptions } from './shared.ts';

export interface DuplicatesOptions extends SharedOptions {
  readonly command: 'duplicates';
  /** Undefined: measured. */
  readonly threshold: number | undefined;
  /** Images whose copies are measured. */
  readonly sample: number;
  readonly html: string | undefined;
  readonly json: boolean;
}

export function duplicatesOptions(shared: SharedOptions, values: Values): DuplicatesOptions {
  const threshold = values.threshold === undefined ? undefined : Number(values.threshold);
  if (threshold !== undefined && !(values.threshold?.trim() !== '' && threshold >= 0 && threshold <= 2)) {
    throw new RefusedError(`--threshold is a cosine distance, from 0 to 2, not ${values.threshold}.`);
  }
  if (threshold !== undefined && values.sample !== undefined) throw new RefusedError('--sample is of the measuring that --threshold does without.');
  return { ...shared, command: 'duplicates', threshold, sample: count('sample', values.sample ?? '100'), html: values.html, json: values.json ?? false };
}
