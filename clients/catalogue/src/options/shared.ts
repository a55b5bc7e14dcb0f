/** What every command is told, and how a value is checked. */
import { RefusedError } from '../errors.ts';
import type { Values } from './flags.ts';

export interface SharedOptions {
  readonly database: string;
  readonly table: string;
  readonly server: string;
  readonly apiKey: string | undefined;
  /** Images in a request and rows in a transaction. */
  readonly batch: number;
  readonly concurrency: number;
  readonly patienceMs: number;
  readonly failures: string;
  /** Relative locations are relative to this folder. */
  readonly base: string | undefined;
}

export function sharedOptions(values: Values, env: NodeJS.ProcessEnv): SharedOptions {
  const database = values.database ?? env['DATABASE_URL'] ?? '';
  const table = values.table ?? 'image_embeddings';
  const server = values.server ?? env['CLIP_SERVER_URL'] ?? 'http://localhost:5000';
  const options = {
    database, table, server,
    apiKey: env['CLIP_API_KEY'],
    batch: count('batch', values.batch ?? '32'),
    concurrency: count('concurrency', values.concurrency ?? '4'),
    patienceMs: count('patience', values.patience ?? '600') * 1000,
    failures: values.failures ?? 'catalog-failures.jsonl',
    base: values.base,
  };
  if (database === '') throw new RefusedError('No database: give --database postgresql://... or set DATABASE_URL.');
  assertTable('table', table);
  return options;
}

export function assertTable(flag: string, name: string): void {
  if (/^([A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]*$/.test(name)) return;
  throw new RefusedError(`--${flag} must be a plain name, or schema.name, not ${name}.`);
}

export function count(flag: string, value: string, least = 1): number {
  const number = Number(value);
  if (!Number.isInteger(number) || number < least || value.trim() === '') throw new RefusedError(`--${flag} must be a whole number above ${least - 1}, not ${value}.`);
  return number;
}
