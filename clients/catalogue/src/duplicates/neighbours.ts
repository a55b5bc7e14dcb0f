/** The contents of a table, and which of them are near to one another. Reads only. Knows nothing of pixels or thresholds of its own. */
import { mapOrdered } from 'clipsrv-client';
import type { Database } from '../database.ts';
import { quoted } from '../tables/names.ts';

/** Images of the same bytes: one row, or several with the same sha256. */
export interface Content {
  /** Its sha256, or, where someone wrote there what is none, a name of its own. */
  readonly key: string;
  /** The first of its ids. */
  readonly id: string;
  readonly rows: number;
}

/** Two contents, by their places in the list, and the cosine distance of their vectors: 0 is the same direction. */
export interface Pair {
  readonly one: number;
  readonly other: number;
  readonly distance: number;
}

export interface Nearness {
  readonly pairs: readonly Pair[];
  /** Of each content that has a neighbour: the distance to the nearest, ascending. */
  readonly nearest: Float64Array;
  /** The distance to the tenth nearest, or to the last there is, ascending. */
  readonly tenth: Float64Array;
}

export interface Member {
  readonly key: string;
  readonly id: string;
  readonly location: string;
  readonly sha256: string;
}

const NEIGHBOURS = 10;
const PAGE = 64;
const KEY = (row: string): string => `CASE WHEN ${row}.sha256 ~ '^[0-9a-f]{64}$' THEN ${row}.sha256 ELSE 'id ' || ${row}.id END`;
/** Of a row `a`, and `o` beside it: that they are of two contents. It is asked for every pair, so the pattern is looked at last. */
const OTHER = `o.id <> a.id AND (o.sha256 <> a.sha256 OR a.sha256 !~ '^[0-9a-f]{64}$')`;

/** The rows of one model in one table. */
export class Gallery {
  readonly #table: string;

  constructor(
    readonly database: Database,
    table: string,
    readonly embeddingId: string,
  ) {
    this.#table = quoted(table);
  }

  /** All of them, in the order of their first ids. */
  async contents(): Promise<readonly Content[]> {
    const rows = await this.database.query<Content>(
      `SELECT ${KEY('t')} AS key, min(t.id COLLATE "C") AS id, count(*)::int AS rows FROM ${this.#table} AS t
       WHERE embedding_id = $1 GROUP BY 1 ORDER BY 2`,
      [this.embeddingId],
    );
    return rows;
  }

  /** `count` rows of contents, always the same ones, with their vectors. */
  async sample(count: number): Promise<readonly (Member & { readonly vector: readonly number[] })[]> {
    const rows = await this.database.query<Member & { vector: string }>(
      `SELECT * FROM (SELECT DISTINCT ON (key) * FROM (SELECT ${KEY('t')} AS key, t.id, t.location, t.sha256, t.embedding::text AS vector
       FROM ${this.#table} AS t WHERE embedding_id = $1) AS r ORDER BY key, id) AS s ORDER BY md5(id) LIMIT $2`,
      [this.embeddingId, count],
    );
    return rows.map((row) => ({ ...row, vector: JSON.parse(row.vector) as number[] }));
  }

  /** Every row of these contents, in the order of their ids. */
  members(keys: readonly string[]): Promise<readonly Member[]> {
    return this.database.query<Member>(
      `SELECT * FROM (SELECT ${KEY('t')} AS key, t.id, t.location, t.sha256 FROM ${this.#table} AS t WHERE embedding_id = $1) AS r
       WHERE key = ANY($2::text[]) ORDER BY id COLLATE "C"`,
      [this.embeddingId, keys],
    );
  }

  /** The pairs of contents that are no farther apart than `within`. `done` is told how many contents were compared, step by step. */
  async near(contents: readonly Content[], within: number, done: (count: number) => void, signal: AbortSignal): Promise<Nearness> {
    const places = new Map(contents.map(({ key }, place) => [key, place]));
    const total = contents.reduce((sum, { rows }) => sum + rows, 0);
    const [pairs, nearest, tenth]: [Map<string, Pair>, number[], number[]] = [new Map(), [], []];
    const keep = (one: number, key: string, distance: number): void => {
      const other = places.get(key);
      // A row that was written since.
      if (other === undefined || distance > within) return;
      const [a, b] = one < other ? [one, other] : [other, one];
      pairs.set(`${a} ${b}`, { one: a, other: b, distance });
    };
    const crowded: number[] = [];
    const starts = Array.from({ length: Math.ceil(contents.length / PAGE) }, (_, i) => i * PAGE);
    const look = async (start: number) => ({ start, found: await this.#nearestOf(contents.slice(start, start + PAGE), total) });
    for await (const { start, found } of mapOrdered(starts, 2, look, signal)) {
      for (const [i, neighbours] of found.entries()) {
        const [first, last] = [neighbours[0], neighbours.at(-1)];
        if (first === undefined || last === undefined) continue;
        nearest.push(first.distance);
        tenth.push(last.distance);
        for (const { key, distance } of neighbours) keep(start + i, key, distance);
        if (neighbours.length === NEIGHBOURS && last.distance <= within) crowded.push(start + i);
      }
      done(found.length);
    }
    // Where all ten are near there may be more. One that is near to such a one needs no look of its own.
    const covered = new Set<number>();
    for (const place of crowded) {
      if (covered.has(place)) continue;
      for (const { key, distance } of await this.#allWithin(contents[place] as Content, within)) {
        keep(place, key, distance);
        covered.add(places.get(key) ?? place);
      }
      signal.throwIfAborted();
    }
    return { pairs: [...pairs.values()], nearest: Float64Array.from(nearest).sort(), tenth: Float64Array.from(tenth).sort() };
  }

  /** Of each content the nearest rows of others, the nearest first. */
  async #nearestOf(page: readonly Content[], total: number): Promise<readonly (readonly Neighbour[])[]> {
    const found = await this.#ask(page.map(({ id }) => id), '');
    // An index gives so many rows and no more; those of the content itself were among them, and of models and rows that are gone.
    const short = page.flatMap(({ id, rows }, i) => ((found[i]?.length ?? 0) < Math.min(NEIGHBOURS, total - rows) ? [{ id, i }] : []));
    if (short.length === 0) return found;
    const exact = await this.#ask(short.map(({ id }) => id), 'OFFSET 0');
    for (const [k, { i }] of short.entries()) found[i] = exact[k] ?? [];
    return found;
  }

  async #ask(ids: readonly string[], fence: '' | 'OFFSET 0'): Promise<(readonly Neighbour[])[]> {
    const compared = `SELECT o.id, o.sha256, o.embedding <=> a.embedding AS distance FROM ${this.#table} AS o
      WHERE o.embedding_id = $2 AND ${OTHER}`;
    const nearest = fence === '' ? `${compared} ORDER BY o.embedding <=> a.embedding LIMIT ${NEIGHBOURS}`
      : `SELECT * FROM (${compared} OFFSET 0) AS every ORDER BY distance LIMIT ${NEIGHBOURS}`;
    const rows = await this.database.transaction(async (client) => {
      // Planners take an HNSW index for dearer than it is beside so many comparisons.
      if (fence === '') await client.query(`SET LOCAL hnsw.ef_search = ${EF_SEARCH}; SET LOCAL enable_seqscan = off`);
      return (await client.query<Neighbour & { place: number }>(
        `SELECT asked.place::int, ${KEY('n')} AS key, n.distance FROM unnest($1::text[]) WITH ORDINALITY AS asked (id, place)
         JOIN ${this.#table} AS a ON a.id = asked.id CROSS JOIN LATERAL (${nearest}) AS n ORDER BY asked.place, n.distance`,
        [ids, this.embeddingId],
      )).rows;
    });
    const found: Neighbour[][] = ids.map(() => []);
    for (const { place, key, distance } of rows) found[place - 1]?.push({ key, distance });
    return found;
  }

  #allWithin({ id }: Content, within: number): Promise<readonly Neighbour[]> {
    return this.database.query<Neighbour>(
      `SELECT ${KEY('every')} AS key, distance FROM (SELECT o.id, o.sha256, o.embedding <=> a.embedding AS distance FROM ${this.#table} AS o, ${this.#table} AS a
       WHERE a.id = $1 AND o.embedding_id = $2 AND ${OTHER} OFFSET 0) AS every WHERE distance <= $3`,
      [id, this.embeddingId, within],
    );
  }
}

interface Neighbour {
  readonly key: string;
  readonly distance: number;
}

const EF_SEARCH = 100;
