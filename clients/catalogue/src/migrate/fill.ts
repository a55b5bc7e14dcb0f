/** Carries rows from one table of a catalogue to the other: images -> vectors of the other's model. Prints nothing; tells an Observer. */
import { ClipServerError, group, mapOrdered, withRetry, type ClipClient } from 'clipsrv-client';
import { EntryError, RefusedError } from '../errors.ts';
import type { Observer } from '../job.ts';
import { loadImage, sha256 } from '../load.ts';
import { Overtaken, type DueRow, type Passage, type Vector } from '../tables/due.ts';
import { isLockedOut } from '../tables/twin.ts';

export interface FillOptions {
  readonly passage: Passage;
  /** Of the model whose table is filled. */
  readonly client: ClipClient;
  /** Relative locations are relative to this folder. */
  readonly base: string;
  readonly batch: number;
  readonly observer: Observer;
  readonly signal: AbortSignal;
}

type Loaded = DueRow & ({ readonly bytes: Uint8Array } | { readonly problem: Error });

const LOADS_AT_ONCE = 8;
const SHA256 = /^[0-9a-f]{64}$/;

/** Everything that `passage` has to carry now; a row that fails stays due. Returns how many rows were carried. */
export async function fill(options: FillOptions): Promise<number> {
  return (await carryAll(options.passage.missingRows(), options)) + (await fillChanges(options));
}

/** The same for what was written since the triggers are there. */
export const fillChanges = (options: FillOptions): Promise<number> => carryAll(options.passage.changedRows(), options);

async function carryAll(due: AsyncIterable<DueRow>, options: FillOptions): Promise<number> {
  let carried = 0;
  const carry = (batch: Vector[]): Promise<number> => carryBatch(batch, options);
  for await (const count of mapOrdered(group(vectors(due, options), options.batch, Infinity, () => 0), 2, carry, options.signal)) {
    options.observer.stored(count);
    carried += count;
  }
  return carried;
}

async function* vectors(due: AsyncIterable<DueRow>, { base, client, observer, passage, signal }: FillOptions): AsyncGenerator<Vector> {
  const load = async (row: DueRow): Promise<Loaded> => {
    try {
      if (row.hasVector) return { ...row, bytes: new Uint8Array() };
      const bytes = await loadImage(row.location, base, signal);
      // A sha256 that is none was written by someone else, for whom it means something else.
      if (SHA256.test(row.sha256) && sha256(bytes) !== row.sha256) throw new EntryError('image_changed', CHANGED);
      return { ...row, bytes };
    } catch (problem) {
      signal.throwIfAborted();
      return { ...row, problem: problem as Error };
    }
  };
  const read = (row: Loaded): Uint8Array => {
    if ('problem' in row) throw row.problem;
    return row.bytes;
  };
  const ready: Vector[] = [];
  const loaded = (async function* (): AsyncGenerator<Loaded> {
    for await (const row of mapOrdered(due, LOADS_AT_ONCE, load, signal)) {
      if (row.hasVector) ready.push({ id: row.id, sha256: row.sha256, embedding: undefined });
      else yield row;
    }
  })();
  for await (const result of client.embedStream(loaded, read, { signal })) {
    const { id, location, sha256: digest } = result.item;
    if (!result.ok) {
      const code = result.error instanceof EntryError || result.error instanceof ClipServerError ? result.error.code : 'failed';
      observer.failed({ id, location, code, message: result.error.message });
    } else if (result.embeddingId === passage.to.embeddingId) yield { id, sha256: digest, embedding: result.embedding };
    else throw new RefusedError(`The server answers with embedding_id ${result.embeddingId}, where ${passage.to.model} is ${passage.to.embeddingId}.`);
    yield* ready.splice(0);
  }
  yield* ready;
}

const CHANGED = 'the image there is not the one that was embedded before: run the catalogue job first';

/** A batch that met another writer is carried in halves, down to single rows, which are left for the next time if they must be. */
async function carryBatch(batch: readonly Vector[], options: FillOptions): Promise<number> {
  const policy = { maxAttempts: ATTEMPTS, baseDelayMs: 100, maxDelayMs: 1000, maxElapsedMs: 10_000 };
  const met = (error: unknown): boolean => error instanceof Overtaken || isLockedOut(error);
  try {
    return await withRetry(() => options.passage.carry(batch), { policy, signal: options.signal, worthRetrying: met });
  } catch (error) {
    if (!met(error)) throw error;
    if (batch.length === 1) return 0;
    const middle = Math.ceil(batch.length / 2);
    return (await carryBatch(batch.slice(0, middle), options)) + (await carryBatch(batch.slice(middle), options));
  }
}

const ATTEMPTS = 3;
