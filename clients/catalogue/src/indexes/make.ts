/** Makes a catalogue's HNSW index while its readers and writers go on, in parallel, and tells how far it is. */
import { followAbort, sleep } from 'clipsrv-client';
import type pg from 'pg';
import type { Database } from '../database.ts';
import { RefusedError } from '../errors.ts';
import { bare, beside, literal, quoted } from '../tables/names.ts';
import { KINDS, type KindName, type Settings } from './kinds.ts';

export interface Made {
  readonly name: string;
  readonly kind: KindName;
  /** False while it is being made, and if its making was ended: then no query uses it. */
  readonly isValid: boolean;
  readonly bytes: number;
}

/** An index, and what may be used to make it. */
export interface Plan {
  readonly table: string;
  readonly name: string;
  /** What follows the table's name in CREATE INDEX. */
  readonly using: string;
  /** Beside the one that leads; undefined: as the database has it. */
  readonly workers?: number | undefined;
  /** maintenance_work_mem, as PostgreSQL writes sizes; undefined: as the database has it. */
  readonly memory?: string | undefined;
}

/** Told the share that is done of a phase, from 0 to 1, and the phase in PostgreSQL's words. */
export type OnProgress = (share: number, phase: string) => void;

/** The name of the index of this kind; the first kind's is what it has always been. */
export const indexName = (table: string, kind: KindName): string => `${bare(table)}_embedding_hnsw${kind === 'vector' ? '' : `_${kind}`}`;

/** The HNSW indexes for cosine, over whatever form of the vectors, the most exact first. */
export async function indexesOf(database: Database, table: string): Promise<Made[]> {
  const rows = await database.query<{ name: string; operators: string; valid: boolean; bytes: string }>(
    `SELECT c.relname AS name, o.opcname AS operators, i.indisvalid AS valid, pg_relation_size(c.oid) AS bytes
     FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS a ON a.oid = c.relam JOIN pg_opclass AS o ON o.oid = i.indclass[0]
     WHERE i.indrelid = to_regclass($1) AND a.amname = 'hnsw' AND i.indpred IS NULL ORDER BY c.relname`,
    [quoted(table)],
  );
  return Object.values(KINDS).flatMap(({ name: kind, operators }) =>
    rows.filter((row) => row.operators === operators).map(({ name, valid, bytes }) => ({ name, kind, isValid: valid, bytes: Number(bytes) })));
}

/** The index of this kind over the vectors of a table. */
export function hnsw(table: string, dimensions: number, kind: KindName, { m, efConstruction }: Settings): Plan {
  const { key, operators } = KINDS[kind];
  return { table, name: indexName(table, kind), using: `USING hnsw (${key(dimensions)} ${operators}) WITH (m = ${m}, ef_construction = ${efConstruction})` };
}

/**
 * Makes an index if it is not there. One whose making was ended is made anew; one that another process is making is waited for. Throws
 * RefusedError where the database has not the memory it was told to take.
 */
export async function makeIndex(database: Database, plan: Plan, onProgress: OnProgress, signal: AbortSignal): Promise<void> {
  const { table, name, using } = plan;
  const full = quoted(beside(table, name));
  for (;;) {
    signal.throwIfAborted();
    const [there] = await database.query<{ valid: boolean }>('SELECT indisvalid AS valid FROM pg_index WHERE indexrelid = to_regclass($1)', [full]);
    if (there?.valid) return;
    const [progress] = await database.query<ProgressRow>(`${PROGRESS} WHERE index_relid = to_regclass($1)`, [full]);
    if (progress !== undefined) {
      onProgress(...told(progress));
      await sleep(POLL_MS, signal);
      continue;
    }
    await database.session(async (client, pid) => {
      // Without statistics, as right after a table was filled, the planner compares every row rather than ask the index.
      const statistics = (): Promise<unknown> => client.query(`ANALYZE ${quoted(table)}`);
      const concurrently = (await isPlain(client, table)) ? 'CONCURRENTLY' : '';
      const drop = (): Promise<unknown> => client.query(`DROP INDEX ${concurrently} IF EXISTS ${full}`);
      if (there !== undefined) await drop();
      await take(client, plan);
      const create = `CREATE INDEX ${concurrently} IF NOT EXISTS "${name}" ON ${quoted(table)} ${using}`;
      await watched(database, pid, client.query(create).then(statistics), onProgress, signal).catch(async (error: Error & { code?: string }) => {
        if (TAKEN.has(error.code ?? '')) return;
        // What is left of it would cost every write and serve no query. Where someone holds it, the next run drops it.
        await client.query(`SET lock_timeout = ${DROP_PATIENCE_MS}`).then(drop).catch(() => undefined);
        signal.throwIfAborted();
        if (error.code !== NO_ROOM) throw error;
        throw new RefusedError(`${name} was not made: ${error.message}. Give it less --memory, or --workers 0; in a container, more --shm-size.`);
      });
    });
  }
}

interface ProgressRow {
  readonly phase: string;
  readonly done: string;
  readonly total: string;
}

const PROGRESS = 'SELECT phase, blocks_done AS done, blocks_total AS total FROM pg_stat_progress_create_index';
const POLL_MS = 250;
const DROP_PATIENCE_MS = 1000;
/** duplicate_table, unique_violation: another process has begun to make it in this very moment. */
const TAKEN: ReadonlySet<string> = new Set(['42P07', '23505']);
/** disk_full, which is also said of shared memory. */
const NO_ROOM = '53100';

const told = ({ done, total, phase }: ProgressRow): [number, string] => [Number(total) === 0 ? 0 : Number(done) / Number(total), phase];

/** A partitioned table's index can only be made while who writes waits. */
async function isPlain(client: pg.PoolClient, table: string): Promise<boolean> {
  const { rows } = await client.query<{ kind: string }>('SELECT relkind AS kind FROM pg_class WHERE oid = to_regclass($1)', [quoted(table)]);
  return rows[0]?.kind === 'r';
}

async function take(client: pg.PoolClient, { workers, memory }: Plan): Promise<void> {
  // A build that fills its memory goes on, on disk; one that is cut by a limit of time never ends.
  await client.query('SET statement_timeout = 0');
  if (workers !== undefined) await client.query(`SET max_parallel_maintenance_workers = ${workers}`);
  if (memory !== undefined) await client.query(`SET maintenance_work_mem = ${literal(memory)}`);
}

/** Tells how far the statement of the session `pid` is until it ends. What the signal ends here would go on in the database: it is cancelled there. */
async function watched<T>(database: Database, pid: number, statement: Promise<T>, onProgress: OnProgress, signal: AbortSignal): Promise<T> {
  let isOver = false;
  const over = (): void => void (isOver = true);
  const ended = statement.then(over, over);
  while (!isOver && !signal.aborted) {
    const timer = new AbortController();
    const letGo = followAbort(signal, timer);
    await Promise.race([ended, sleep(POLL_MS, timer.signal).catch(() => undefined)]).finally(letGo);
    timer.abort();
    if (isOver || signal.aborted) break;
    // A bar that stands still for a moment is no reason to end the work.
    const [row] = await database.query<ProgressRow>(`${PROGRESS} WHERE pid = $1`, [pid]).catch(() => []);
    if (row !== undefined) onProgress(...told(row));
  }
  if (!isOver) await database.cancel(pid);
  return statement;
}
