/** What an index over another form of the vectors would lose and save, told from a catalogue's own rows before it is made. */
import type { Database } from '../database.ts';
import { literal, quoted } from '../tables/names.ts';
import { KINDS, type KindName, type Settings } from './kinds.ts';
import type { OnProgress } from './make.ts';

export const NEIGHBOURS = 10;
const SAMPLE = 200;
const SMALLEST_SAMPLE = 20;
/** Rows compared in all for one type: some minute on two cores. */
const COMPARISONS = 4_000_000;
/** So many rows show how large an index of all is. */
const SIZED = 2000;
/** Two distances that differ by less are the same: rows with one vector stand in for one another. */
const SAME = 1e-6;

export interface Figures {
  readonly kind: KindName;
  /** The share of the ten nearest that is found if the index itself misses nothing. */
  readonly recall: number;
  /** Rows of the index that are compared by their full vectors. */
  readonly candidates: number;
  readonly bytes: number;
}

export interface Question {
  /** As pgvector reads it. */
  readonly vector: string;
  /** The distance of the tenth nearest row, every row compared. */
  readonly tenth: number;
  /** Ten, or how many rows there are. */
  readonly hits: number;
}

/** Rows of the catalogue as questions; which ones is the same each time. `known` is how many rows there are. */
export async function questionsOf(database: Database, table: string, known: number, sample: number | undefined, onProgress: OnProgress): Promise<Question[]> {
  const wanted = sample ?? Math.max(SMALLEST_SAMPLE, Math.min(SAMPLE, Math.floor(COMPARISONS / Math.max(known, 1))));
  const rows = await database.query<{ vector: string }>(
    `SELECT embedding::text AS vector FROM ${quoted(table)} WHERE id IN (SELECT id FROM ${quoted(table)} ORDER BY md5(id) LIMIT $1)`,
    [wanted],
  );
  const questions: Question[] = [];
  for (const [i, { vector }] of rows.entries()) {
    onProgress(i / rows.length, 'every row compared');
    const [found] = await database.query<{ tenth: number; hits: number }>(
      `SELECT max(distance) AS tenth, count(*)::int AS hits FROM (SELECT distance FROM (SELECT embedding <=> $1::vector AS distance FROM ${quoted(table)} OFFSET 0) AS r
       ORDER BY distance LIMIT ${NEIGHBOURS}) AS nearest`,
      [vector],
    );
    if (found !== undefined) questions.push({ vector, ...found });
  }
  return questions;
}

/** The mean share of the nearest that is among what `search` finds with this kind, if its index gives the very nearest in its own distance. */
export async function recallOfKind(database: Database, table: string, dimensions: number, kind: KindName, questions: readonly Question[], onProgress: OnProgress): Promise<number> {
  const { distance, taken } = KINDS[kind];
  let share = 0;
  for (const [i, { vector, tenth, hits }] of questions.entries()) {
    onProgress(i / questions.length, `${kind} compared`);
    const to = `${literal(vector)}::vector`;
    const [found] = await database.query<{ hits: number }>(
      `SELECT count(*)::int AS hits FROM (
         SELECT embedding <=> ${to} AS full_distance FROM (SELECT embedding, ${distance(dimensions, to)} AS distance FROM ${quoted(table)} OFFSET 0) AS r
         ORDER BY distance LIMIT ${taken(NEIGHBOURS)}) AS candidates WHERE full_distance <= $1::float8 + ${SAME}`,
      [tenth],
    );
    share += Math.min(1, (found?.hits ?? 0) / hits);
  }
  return questions.length === 0 ? 1 : share / questions.length;
}

/** How large an index of each kind would be on disk: made over some rows in a table of their own, which is gone afterwards. */
export async function sizesOfKinds(database: Database, table: string, dimensions: number, kinds: readonly KindName[], rows: number, settings: Settings): Promise<Map<KindName, number>> {
  return database.session(async (client) => {
    await client.query(`CREATE TEMP TABLE clipsrv_sample AS SELECT embedding FROM ${quoted(table)} LIMIT ${SIZED}`);
    const sizes = new Map<KindName, number>();
    for (const kind of kinds) {
      const { key, operators } = KINDS[kind];
      const { m, efConstruction } = settings;
      await client.query(`CREATE INDEX clipsrv_sample_index ON clipsrv_sample USING hnsw (${key(dimensions)} ${operators}) WITH (m = ${m}, ef_construction = ${efConstruction})`);
      const { rows: found } = await client.query<{ bytes: string }>("SELECT pg_relation_size('clipsrv_sample_index') AS bytes");
      await client.query('DROP INDEX clipsrv_sample_index');
      sizes.set(kind, Math.round(Number(found[0]?.bytes) * Math.max(1, rows / SIZED)));
    }
    return sizes;
  });
}
