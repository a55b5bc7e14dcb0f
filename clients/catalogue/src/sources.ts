/** Where the entries of a catalogue come from, one at a time. Knows nothing of images or vectors. */
import { createReadStream } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { parse } from 'csv-parse';
import type { Database } from './database.ts';
import { RefusedError } from './errors.ts';

export interface CatalogueItem {
  readonly id: string;
  /** A path or URL as the catalogue has it. */
  readonly location: string;
}

/** A row of the catalogue, or why it is not one. `where` is the place a person would look. */
export type Entry = { readonly item: CatalogueItem } | { readonly where: string; readonly problem: string };

export interface Source {
  /** Relative locations are relative to this folder. */
  readonly base: string;
  /** Entries can be read again from the start with each call, always in the same order. */
  entries(): AsyncIterable<Entry>;
}

export interface Columns {
  readonly id: string;
  readonly location: string | undefined;
}

const IMAGE = /\.(avif|bmp|gif|hei[cf]|jpe?g|png|tiff?|webp)$/i;
const LOCATION_COLUMNS = ['path', 'url', 'location', 'image'];

/** Throws RefusedError if `name` is no folder, .csv, .jsonl or .ndjson. */
export async function openSource(name: string, columns: Columns, base: string | undefined): Promise<Source> {
  const found = await stat(name).catch(() => undefined);
  if (found === undefined) throw new RefusedError(`There is no ${name}.`);
  if (found.isDirectory()) return { base: path.resolve(base ?? name), entries: () => folderEntries(name) };
  const folder = path.resolve(base ?? path.dirname(name));
  if (/\.csv$/i.test(name)) return { base: folder, entries: () => csvEntries(name, columns) };
  if (/\.(jsonl|ndjson)$/i.test(name)) return { base: folder, entries: () => jsonEntries(name, columns) };
  throw new RefusedError(`${name} is neither a folder nor a .csv, .jsonl or .ndjson file.`);
}

export function openQuery(database: Database, query: string, base: string | undefined): Source {
  return { base: path.resolve(base ?? '.'), entries: () => queryEntries(database, query) };
}

/** The id is the path inside the folder, with forward slashes; hidden files and folders are left out. */
async function* folderEntries(root: string, inside = ''): AsyncGenerator<Entry> {
  const names = await readdir(path.join(root, inside), { withFileTypes: true });
  names.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of names) {
    if (entry.name.startsWith('.')) continue;
    const id = inside === '' ? entry.name : `${inside}/${entry.name}`;
    if (entry.isDirectory()) yield* folderEntries(root, id);
    else if (IMAGE.test(entry.name)) yield { item: { id, location: id } };
  }
}

async function* csvEntries(file: string, columns: Columns): AsyncGenerator<Entry> {
  const problems: Entry[] = [];
  const parser = parse({ columns: true, bom: true, skip_empty_lines: true, trim: true, skip_records_with_error: true });
  parser.on('skip', (error: Error & { lines?: number }) =>
    problems.push({ where: `${file}:${error.lines ?? '?'}`, problem: error.message }),
  );
  const input = createReadStream(file);
  input.on('error', (error) => parser.destroy(error));
  try {
    for await (const record of input.pipe(parser)) {
      yield* problems.splice(0);
      yield toEntry(record as Record<string, unknown>, columns, () => `${file}, record ${parser.info.records}`);
    }
    yield* problems;
  } finally {
    input.destroy();
  }
}

async function* jsonEntries(file: string, columns: Columns): AsyncGenerator<Entry> {
  const input = createReadStream(file);
  let line = 0;
  try {
    for await (const text of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
      line++;
      if (text.trim() === '') continue;
      const where = `${file}:${line}`;
      const record = parseObject(text);
      yield record === undefined ? { where, problem: 'not a JSON object' } : toEntry(record, columns, () => where);
    }
  } finally {
    input.destroy();
  }
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function toEntry(record: Record<string, unknown>, columns: Columns, where: () => string): Entry {
  const id = asText(record[columns.id]);
  const names = columns.location === undefined ? LOCATION_COLUMNS : [columns.location];
  const location = names.map((name) => asText(record[name])).find((value) => value !== undefined);
  if (id === undefined) return { where: where(), problem: `no ${columns.id}` };
  if (location === undefined) return { where: where(), problem: `no ${names.join(' or ')} for ${id}` };
  return { item: { id, location } };
}

function asText(value: unknown): string | undefined {
  if (typeof value === 'number' || typeof value === 'bigint') return String(value);
  return typeof value === 'string' && value !== '' ? value : undefined;
}

const PAGE = 1000;

/**
 * Pages through the query in the order of its first column as text. Pages rather than one cursor: a cursor dies with its
 * connection, and would hold a transaction open for as long as the job runs.
 */
async function* queryEntries(database: Database, query: string): AsyncGenerator<Entry> {
  const rows = `(SELECT q.id::text COLLATE "C" AS id, q.location::text AS location
                 FROM (${query.replace(/;\s*$/, '')}) AS q (id, location))`;
  const [unnamed] = await database.query<{ count: string }>(`SELECT count(*) AS count FROM ${rows} AS r WHERE coalesce(id, '') = ''`);
  if (unnamed !== undefined && Number(unnamed.count) > 0) {
    yield { where: '--query', problem: `${unnamed.count} rows have no id` };
  }
  let last = '';
  for (;;) {
    const page = await database.query<{ id: string; location: string | null }>(
      `SELECT id, location FROM ${rows} AS r WHERE id > $1 ORDER BY id LIMIT ${PAGE}`,
      [last],
    );
    for (const { id, location } of page) {
      last = id;
      yield location ? { item: { id, location } } : { where: `--query, id ${id}`, problem: 'no path or URL' };
    }
    if (page.length < PAGE) return;
  }
}
