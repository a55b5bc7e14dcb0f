/** The job: entries that are not done yet -> bytes -> vectors -> rows. Prints nothing; tells an Observer. */
import { ClipServerError, group, mapOrdered, type ClipClient } from 'clipsrv-client';
import { EntryError, RefusedError } from './errors.ts';
import { isUrl, loadImage, sha256 } from './load.ts';
import { Seen } from './seen.ts';
import type { CatalogueItem, Entry, Source } from './sources/source.ts';
import type { NewRow, StoredRow, VectorTable } from './tables/table.ts';

export interface Failure {
  readonly id: string;
  readonly location: string;
  readonly code: string;
  readonly message: string;
}

export interface Observer {
  stored(count: number): void;
  skipped(): void;
  /** An entry whose id and location an earlier one has: the same image, named twice. */
  repeated(): void;
  failed(failure: Failure): void;
  /** Dry run only: this entry would be embedded. */
  due(): void;
}

export interface JobOptions {
  readonly source: Source;
  readonly table: VectorTable;
  readonly client: ClipClient;
  /** The vectors' identity: the server's embedding_id. Rows with another one are not done. */
  readonly embeddingId: string;
  /** False while the table does not exist yet, in a dry run. */
  readonly tableExists: boolean;
  readonly recheck: boolean;
  readonly dryRun: boolean;
  /** Rows in a transaction. */
  readonly batch: number;
  readonly observer: Observer;
  readonly signal: AbortSignal;
}

type Loaded = CatalogueItem & ({ readonly bytes: Uint8Array; readonly sha256: string } | { readonly problem: Error });

const LOOKUP = 256;
const LOADS_AT_ONCE = 8;

/** Runs to the end of the source. Throws when the server or the database stays away, or the server's model changes. */
export async function runJob(options: JobOptions): Promise<void> {
  const { client, observer, signal, table } = options;
  const due = dueItems(options);
  if (options.dryRun) {
    for await (const item of due) 'problem' in item ? observer.failed(failureOf(item, item.problem)) : observer.due();
    return;
  }
  const read = (item: Loaded): Uint8Array => {
    if ('problem' in item) throw item.problem;
    return item.bytes;
  };
  const rows = (async function* (): AsyncGenerator<NewRow> {
    for await (const result of client.embedStream(due, read, { signal })) {
      const { item } = result;
      if (!result.ok || 'problem' in item) {
        observer.failed(failureOf(item, result.ok ? new Error('unread') : result.error));
        continue;
      }
      if (result.embeddingId !== options.embeddingId) {
        throw new RefusedError(`The server changed its model on the way: ${options.embeddingId} became ${result.embeddingId}.`);
      }
      const { id, location } = item;
      yield { id, location, sha256: item.sha256, embedding_id: result.embeddingId, embedding: result.embedding };
    }
  })();
  const store = async (batch: NewRow[]): Promise<number> => {
    const refused = await table.upsert(batch);
    for (const { row, code, message } of refused) observer.failed(failureOf(row, new EntryError(code, message)));
    return batch.length - refused.length;
  };
  for await (const count of mapOrdered(group(rows, options.batch, Infinity, () => 0), 2, store, signal)) observer.stored(count);
}

/** Entries that have no row yet, or one of other bytes, another location or another model, with their bytes. */
async function* dueItems(options: JobOptions): AsyncGenerator<Loaded> {
  const { observer, signal, source } = options;
  const load = async ({ item, row }: Candidate): Promise<Loaded | undefined> => {
    try {
      if (options.dryRun && isUrl(item.location)) return { ...item, bytes: new Uint8Array(), sha256: '' };
      const bytes = await loadImage(item.location, source.base, signal);
      const digest = sha256(bytes);
      return row?.sha256 === digest ? undefined : { ...item, bytes, sha256: digest };
    } catch (problem) {
      signal.throwIfAborted();
      return { ...item, problem: problem as Error };
    }
  };
  for await (const loaded of mapOrdered(candidates(options), LOADS_AT_ONCE, load, signal)) {
    if (loaded === undefined) observer.skipped();
    else yield loaded;
  }
}

/** `row` is what the table has for this entry, if that is still of use. */
interface Candidate {
  readonly item: CatalogueItem;
  readonly row: StoredRow | undefined;
}

async function* candidates(options: JobOptions): AsyncGenerator<Candidate> {
  const { embeddingId, observer, recheck, source, table } = options;
  for await (const items of group(newItems(source, observer), LOOKUP, Infinity, () => 0)) {
    const rows = options.tableExists ? await table.rows(items.map(({ id }) => id)) : new Map<string, StoredRow>();
    for (const item of items) {
      const row = rows.get(item.id);
      const current = row?.embedding_id === embeddingId && row.location === item.location ? row : undefined;
      // A file is read and compared by its sha256, which costs little; a URL is believed unless told otherwise.
      if (current !== undefined && isUrl(item.location) && !recheck) observer.skipped();
      else yield { item, row: current };
    }
  }
}

/** Of the entries with one id the first: so no batch holds an id twice, and no second run undoes what the first did. */
async function* newItems(source: Source, observer: Observer): AsyncGenerator<CatalogueItem> {
  const seen = new Seen();
  for await (const entry of source.entries()) {
    const problem = problemOf(entry);
    const item = 'item' in entry ? entry.item : { id: '', location: entry.where };
    const met = problem === undefined ? seen.add(item.id, item.location) : 'bad';
    if (met === 'new') yield item;
    else if (met === 'same') observer.repeated();
    else observer.failed(failureOf(item, new EntryError(met === 'bad' ? 'bad_entry' : 'duplicate_id', problem ?? DUPLICATE)));
  }
}

const DUPLICATE = 'an entry before it has this id, with another image: the first counts';

/** Why an entry is of no use whatever its image is: PostgreSQL holds no NUL, and half a character is sent as another. */
export function problemOf(entry: Entry): string | undefined {
  if (!('item' in entry)) return entry.problem;
  for (const [name, text] of Object.entries({ id: entry.item.id, path: entry.item.location })) {
    if (text.includes('\0')) return `the ${name} holds NUL, which PostgreSQL cannot`;
    if (/\p{Surrogate}/u.test(text)) return `the ${name} holds half a character (a lone surrogate)`;
  }
  return undefined;
}

function failureOf({ id, location }: Pick<CatalogueItem, 'id' | 'location'>, error: Error): Failure {
  const code = error instanceof EntryError || error instanceof ClipServerError ? error.code : 'failed';
  return { id, location, code, message: error.message };
}
