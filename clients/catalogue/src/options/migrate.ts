/** What `migrate` is told. */
import { RefusedError } from '../errors.ts';
import type { Values } from './flags.ts';
import { count, type SharedOptions } from './shared.ts';

export interface MigrateOptions extends SharedOptions {
  readonly command: 'migrate';
  readonly step: 'to' | 'status' | 'switch' | 'rollback' | 'drop';
  /** The model of --to and --drop. */
  readonly model: string;
  readonly toServer: string;
  readonly judgements: string | undefined;
  readonly sample: number | undefined;
  readonly follow: boolean;
  readonly allowMissing: boolean;
}

export function migrateOptions(shared: SharedOptions, values: Values): MigrateOptions {
  const steps = (['to', 'status', 'switch', 'rollback', 'drop'] as const).filter((flag) => values[flag] !== undefined);
  const [step] = steps;
  if (step === undefined || steps.length > 1) {
    throw new RefusedError('migrate needs one of --to MODEL, --status, --switch, --rollback and --drop MODEL.');
  }
  for (const flag of ['judgements', 'sample'] as const) {
    if (values[flag] !== undefined && step !== 'to') throw new RefusedError(`--${flag} goes with --to.`);
  }
  if (values.follow && !['to', 'switch', 'rollback'].includes(step)) throw new RefusedError('--follow goes with --to, --switch and --rollback.');
  return {
    ...shared, command: 'migrate', step,
    model: values.to ?? values.drop ?? '',
    toServer: values['to-server'] ?? shared.server,
    judgements: values.judgements,
    sample: values.sample === undefined ? undefined : count('sample', values.sample),
    follow: values.follow ?? false,
    allowMissing: values['allow-missing'] ?? false,
  };
}
