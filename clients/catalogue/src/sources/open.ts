/** Which source a name or a query stands for. */
import { stat } from 'node:fs/promises';
import path from 'node:path';
import type { Database } from '../database.ts';
import { RefusedError } from '../errors.ts';
import { csvEntries, jsonEntries } from './files.ts';
import { folderEntries } from './folder.ts';
import { queryEntries } from './query.ts';
import type { Columns, Source } from './source.ts';

export interface SourceOptions {
  readonly columns: Columns;
  readonly base?: string | undefined;
  readonly encoding?: string | undefined;
}

/** Throws RefusedError if `name` is no folder, .csv, .tsv, .jsonl or .ndjson. */
export async function openSource(name: string, { columns, base, encoding }: SourceOptions): Promise<Source> {
  const found = await stat(name).catch(() => undefined);
  if (found === undefined) throw new RefusedError(`There is no ${name}.`);
  if (found.isDirectory()) return { base: path.resolve(base ?? name), entries: () => folderEntries(name) };
  const folder = path.resolve(base ?? path.dirname(name));
  // A pipe could be read only once, and opening it would wait for its writer.
  if (!found.isFile()) throw new RefusedError(`${name} is no regular file.`);
  if (/\.[ct]sv$/i.test(name)) return { base: folder, entries: () => csvEntries(name, columns, encoding) };
  if (/\.(jsonl|ndjson)$/i.test(name)) return { base: folder, entries: () => jsonEntries(name, columns, encoding) };
  throw new RefusedError(`${name} is neither a folder nor a .csv, .tsv, .jsonl or .ndjson file.`);
}

export function openQuery(database: Database, query: string, base: string | undefined, updated?: string): Source {
  return { base: path.resolve(base ?? '.'), entries: () => queryEntries(database, query, updated) };
}
