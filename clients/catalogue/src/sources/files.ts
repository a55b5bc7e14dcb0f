/** Catalogues in a file: CSV, whatever separates its columns, and JSON lines. */
import { Readable } from 'node:stream';
import { parse } from 'csv-parse';
import { parse as parseNow } from 'csv-parse/sync';
import { RefusedError } from '../errors.ts';
import { linesOf, LONGEST_RECORD, textOf } from '../text.ts';
import { locationColumns, toEntry, type Columns, type Entry } from './source.ts';

const DELIMITERS = [',', ';', '\t'];
/** Excel's own first line, which says what separates the columns. */
const EXCELS_LINE = /^"?sep=(.)"?\r?\n/i;

/** Throws RefusedError, before the first entry, for a file without the columns named. */
export async function* csvEntries(file: string, columns: Columns, encoding: string | undefined): AsyncGenerator<Entry> {
  const text = textOf(file, encoding);
  const { value: head = '' } = await text.next();
  if (head.trim() === '') return void (await text.return(undefined));
  const problems: Entry[] = [];
  const parser = parse({
    columns: true, skip_empty_lines: true, trim: true, skip_records_with_error: true, max_record_size: LONGEST_RECORD,
    ...shapeOf(head, columns, file),
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
      yield toEntry(record as Record<string, unknown>, columns, () => `${file}, record ${parser.info.records}`);
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

/** What separates the columns: that which finds the column of the ids in the first record. */
function shapeOf(head: string, columns: Columns, file: string): { readonly delimiter: string; readonly from_line: number } {
  const named = EXCELS_LINE.exec(head);
  const first = named === null ? head : head.slice(named[0].length);
  const headers = (named?.[1] === undefined ? DELIMITERS : [named[1]]).map((delimiter) => ({ delimiter, names: firstRecord(first, delimiter) }));
  const found = headers.find(({ names }) => names.includes(columns.id));
  const { names } = found ?? headers.reduce((a, b) => (b.names.length > a.names.length ? b : a));
  const locations = locationColumns(columns);
  const missing =
    found === undefined ? `${columns.id} (--id-column)`
    : locations.some((name) => names.includes(name)) ? undefined
    : `${locations.join(', ')} (--location-column)`;
  if (found !== undefined && missing === undefined) return { delimiter: found.delimiter, from_line: named === null ? 1 : 2 };
  throw new RefusedError(`${file} has no column ${missing}; its columns are: ${names.join(', ')}.`);
}

function firstRecord(head: string, delimiter: string): readonly string[] {
  try {
    return (parseNow(head, { delimiter, to: 1, trim: true, skip_empty_lines: true, relax_column_count: true }) as string[][])[0] ?? [];
  } catch {
    return [];
  }
}

export async function* jsonEntries(file: string, columns: Columns, encoding: string | undefined): AsyncGenerator<Entry> {
  let line = 0;
  for await (const text of linesOf(textOf(file, encoding), file)) {
    line++;
    const bare = text.replace(/^\ufeff/, ''); // files that begin with a mark were joined
    if (bare.trim() === '') continue;
    const where = `${file}:${line}`;
    const record = parseObject(bare);
    yield record === undefined ? { where, problem: 'not a JSON object' } : toEntry(record, columns, () => where);
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
