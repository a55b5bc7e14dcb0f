/** How far a move to another model is, and what it would change: coverage, neighbours, recall. Reads only, and compares every row. */
import type { ClipClient } from 'clipsrv-client';
import type { Database } from '../database.ts';
import type { Side } from '../tables/catalogue.ts';
import { quoted } from '../tables/names.ts';
import { vectorLiteral } from '../tables/table.ts';
import type { Judgement } from './judgements.ts';

export const NEIGHBOURS = 10;
const SAMPLE = 200;
const SMALLEST_SAMPLE = 20;
/** Rows compared in all, in each table: some two minutes on two cores. */
const COMPARISONS = 20_000_000;

/** How many of the ten nearest neighbours of an image are the same in both tables, over `sample` of the images that both have. */
export async function sharedNeighbours(database: Database, one: Side, other: Side, rows: number, sample: number | undefined): Promise<{ shared: number; images: number }> {
  const images = sample ?? Math.max(SMALLEST_SAMPLE, Math.min(SAMPLE, Math.floor(COMPARISONS / Math.max(rows, 1))));
  const ids = await database.query<{ id: string }>(
    `SELECT id FROM ${quoted(one.table)} JOIN ${quoted(other.table)} USING (id) ORDER BY md5(id) LIMIT $1`,
    [images],
  );
  let shared = 0;
  for (const { id } of ids) {
    const [a, b] = await Promise.all([one, other].map((side) => neighbours(database, side, id)));
    shared += a?.filter((name) => b?.includes(name)).length ?? 0;
  }
  return { shared: ids.length === 0 ? 0 : shared / ids.length, images: ids.length };
}

async function neighbours(database: Database, { table }: Side, id: string): Promise<string[]> {
  const rows = await database.query<{ id: string }>(
    `SELECT id FROM (SELECT id, embedding <=> (SELECT embedding FROM ${quoted(table)} WHERE id = $1) AS distance
                     FROM ${quoted(table)} WHERE id <> $1 OFFSET 0) AS r ORDER BY distance, id LIMIT ${NEIGHBOURS}`,
    [id],
  );
  return rows.map((row) => row.id);
}

export interface Recall {
  /** The share of queries whose first hit is one of theirs. */
  readonly first: number;
  /** The mean share of a query's images that are among its first ten hits, of the ten there can be. */
  readonly ten: number;
}

/** How well `side` finds what people meant; ids that are not in its table count as not found. */
export async function recallOf(database: Database, side: Side, client: ClipClient, judgements: readonly Judgement[]): Promise<Recall> {
  const vectors = await client.embedTexts(judgements.map(({ query }) => query));
  let [first, ten] = [0, 0];
  for (const [i, { ids }] of judgements.entries()) {
    const rows = await database.query<{ id: string }>(
      `SELECT id FROM (SELECT id, embedding <=> $1::vector AS distance FROM ${quoted(side.table)} OFFSET 0) AS r ORDER BY distance, id LIMIT ${NEIGHBOURS}`,
      [vectorLiteral(vectors[i] ?? new Float32Array())],
    );
    const found = rows.map(({ id }) => ids.has(id));
    if (found[0]) first++;
    ten += found.filter(Boolean).length / Math.min(ids.size, NEIGHBOURS);
  }
  return { first: first / judgements.length, ten: ten / judgements.length };
}

export async function rowsOf(database: Database, { table }: Pick<Side, 'table'>): Promise<number> {
  const [found] = await database.query<{ rows: string }>(`SELECT count(*) AS rows FROM ${quoted(table)}`);
  return Number(found?.rows);
}
