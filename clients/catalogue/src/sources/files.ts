/** Records of a file, and catalogues of them: CSV, whatever separates its columns, and JSON lines. */
import { Readable } from 'node:stream';
import { parse } from 'csv-parse';
import { parse as parseNow } from 'csv-parse/sync';
import { RefusedError } from '../errors.ts';
import { linesOf, LONGEST_RECORD, textOf } from '../text.ts';
import { locationColumns, toEntry, type Columns, type Entry } from './source.ts';

const DELIMITERS = [',', ';', '\t'];
/** Excel's own first line, which says what separates the columns. */
const EXCELS_LINE = /^"?sep=(.)"?\r?\n/i;

/** A record of a file and the place a person would look for it, or why there is none. */
type FileRecord = { readonly record: Record<string, unknown>; readonly where: string } | { readonly where: string; readonly problem: string };

/** A column that must be there: the first of `names` that is; `hint` goes behind them in the message. */
interface Wanted {
  readonly names: readonly string[];
  readonly hint: string;
}

/** The records of a .csv, .tsv, .jsonl or .ndjson file. Throws RefusedError for another, a CSV without `columns`, a line that is no record. */
export async function* records(file: string, columns: readonly string[]): AsyncGenerator<{ readonly record: Record<string, unknown>; readonly where: string }> {
  const isCsv = /\.[ct]sv$/i.test(file);
  if (!isCsv && !/\.(jsonl|ndjson)$/i.test(file)) throw new RefusedError(`${file} is neither a .csv, .tsv, .jsonl nor .ndjson file.`);
  const wanted = columns.map((name) => ({ names: [name], hint: '' }));
  for await (const found of isCsv ? csvRecords(file, wanted, undefined) : jsonRecords(file, undefined)) {
    if ('problem' in found) throw new RefusedError(`${found.where}: ${found.problem}`);
    yield found;
  }
}

/** Throws RefusedError, before the first entry, for a file without the columns named. */
export async function* csvEntries(file: string, columns: Columns, encoding: string | undefined): AsyncGenerator<Entry> {
  const wanted = [{ names: [columns.id], hint: ' (--id-column)' }, { names: locationColumns(columns), hint: ' (--location-column)' }];
  yield* entriesOf(csvRecords(file, wanted, encoding), columns);
}

export async function* jsonEntries(file: string, columns: Columns, encoding: string | undefined): AsyncGenerator<Entry> {
  yield* entriesOf(jsonRecords(file, encoding), columns);
}

async function* entriesOf(found: AsyncIterable<FileRecord>, columns: Columns): AsyncGenerator<Entry> {
  for await (const one of found) yield 'problem' in one ? one : toEntry(one.record, columns, () => one.where);
}

async function* csvRecords(file: string, wanted: readonly Wanted[], encoding: string | undefined): AsyncGenerator<FileRecord> {
  const text = textOf(file, encoding);
  const { value: head = '' } = await text.next();
  if (head.trim() === '') return void (await text.return(undefined));
  const problems: FileRecord[] = [];
  const parser = parse({
    columns: true, skip_empty_lines: true, trim: true, skip_records_with_error: true, max_record_size: LONGEST_RECORD,
    ...shapeOf(head, wanted, file),
  });
  parser.on('skip', (error: Error & { code?: string; lines?: number }) => {
    if (error.code === 'CSV_MAX_RECORD_SIZE') parser.destroy(new RefusedError(`${file}: a record of more than ${LONGEST_RECORD} bytes; is a quote not closed?`));
    else problems.push({ where: `${file}:${error.lines ?? '?'}`, problem: error.message });
  });
  const input = Readable.from(joined(head, text));
  input.on('error', (error) => parser.destroy(error));
  try {
    for await (const record of input.pipe(parser)) {
      yield* problems.splice(0);
      yield { record: record as Record<string, unknown>, where: `${file}, record ${parser.info.records}` };
    }
    yield* problems;
  } finally {
    input.destroy();
  }
}

async function* joined(head: string, rest: AsyncIterable<string>): AsyncGenerator<string> {
  yield head;
  yield* rest;
}

/** What separates the columns: that which finds the first of those wanted in the first record. */
function shapeOf(head: string, wanted: readonly Wanted[], file: string): { readonly delimiter: string; readonly from_line: number } {
  const named = EXCELS_LINE.exec(head);
  const first = named === null ? head : head.slice(named[0].length);
  const headers = (named?.[1] === undefined ? DELIMITERS : [named[1]]).map((delimiter) => ({ delimiter, names: firstRecord(first, delimiter) }));
  const has = (names: readonly string[], column: Wanted | undefined): boolean => column?.names.some((name) => names.includes(name)) ?? true;
  const { delimiter, names } = headers.find((header) => has(header.names, wanted[0])) ?? headers.reduce((a, b) => (b.names.length > a.names.length ? b : a));
  const missing = wanted.find((column) => !has(names, column));
  if (missing === undefined) return { delimiter, from_line: named === null ? 1 : 2 };
  throw new RefusedError(`${file} has no column ${missing.names.join(', ')}${missing.hint}; its columns are: ${names.join(', ')}.`);
}

function firstRecord(head: string, delimiter: string): readonly string[] {
  try {
    return (parseNow(head, { delimiter, to: 1, trim: true, skip_empty_lines: true, relax_column_count: true }) as string[][])[0] ?? [];
  } catch {
    return [];
  }
}

async function* jsonRecords(file: string, encoding: string | undefined): AsyncGenerator<FileRecord> {
  let line = 0;
  for await (const text of linesOf(textOf(file, encoding), file)) {
    line++;
    const bare = text.replace(/^\ufeff/, ''); // files that begin with a mark were joined
    if (bare.trim() === '') continue;
    const where = `${file}:${line}`;
    const record = parseObject(bare);
    yield record === undefined ? { where, problem: 'not a JSON object' } : { record, where };
  }
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
