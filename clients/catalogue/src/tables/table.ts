/** The table of vectors: its shape, what is in it, and how rows get there. All SQL of the job is here. */
import { COLUMNS, LOCK } from '../contract.ts';
import type { Database } from '../database.ts';
import { RefusedError } from '../errors.ts';
import { efSearch, KINDS, MAX_EF_SEARCH } from '../indexes/kinds.ts';
import { indexesOf } from '../indexes/make.ts';
import { quoted } from './names.ts';

export interface StoredRow {
  readonly id: string;
  readonly location: string;
  readonly sha256: string;
  readonly embedding_id: string;
}

export interface NewRow extends StoredRow {
  readonly embedding: Float32Array;
}

export interface Hit {
  readonly id: string;
  readonly location: string;
  /** Cosine: 1 is the same direction. */
  readonly similarity: number;
}

export interface RefusedRow {
  readonly row: NewRow;
  readonly code: 'bad_entry' | 'refused_row';
  readonly message: string;
}

const NAMES = Object.keys(COLUMNS) as (keyof NewRow)[];
const DEFINITIONS = Object.entries(COLUMNS).map(([name, kind]) => `${name} ${kind}`).join(', ');
const OTHERS = NAMES.filter((name) => name !== 'id');
/** Text the database cannot hold, a key too long for its index, an id twice by the column's own rules; a constraint. */
const OF_ROWS = /^(22...|54000|21000|23...)$/;

export const vectorLiteral = (vector: Float32Array): string => `[${vector.join(',')}]`;

export class VectorTable {
  readonly #sql: string;
  #hasStored = false;

  /** `name` is a plain identifier, or schema.identifier. */
  constructor(
    readonly database: Database,
    readonly name: string,
  ) {
    this.#sql = quoted(name);
  }

  async create(dimensions: number): Promise<void> {
    await this.database.transaction(async (client) => {
      // IF NOT EXISTS is no protection against a second job that creates the same at the same moment.
      await client.query('SELECT pg_advisory_xact_lock(hashtext($1))', [LOCK]);
      await client.query('CREATE EXTENSION IF NOT EXISTS vector');
      await client.query(`CREATE TABLE IF NOT EXISTS ${this.#sql} (${DEFINITIONS.replace('{dimensions}', String(dimensions))})`);
    });
  }

  /** The dimensions of the vector column, or undefined if there is no such table. Throws RefusedError for another table. */
  async dimensions(): Promise<number | undefined> {
    const columns = await this.database.query<{ name: string; type: string }>(
      `SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute
       WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped`,
      [this.#sql],
    );
    if (columns.length === 0) return undefined;
    const missing = NAMES.filter((column) => !columns.some(({ name }) => name === column));
    if (missing.length > 0) {
      throw new RefusedError(`The table ${this.name} has no column ${missing.join(', ')}: name another with --table.`);
    }
    const { type } = columns.find(({ name }) => name === 'embedding') ?? { type: '' };
    const dimensions = /vector\((\d+)\)$/.exec(type)?.[1];
    if (dimensions === undefined) throw new RefusedError(`The column embedding of ${this.name} is ${type}, not vector(N).`);
    return Number(dimensions);
  }

  /** Another embedding_id than this one that occurs in the table, and how often. */
  async foreign(embeddingId: string): Promise<{ embeddingId: string; rows: number } | undefined> {
    const [other] = await this.database.query<{ embedding_id: string; rows: string }>(
      `SELECT embedding_id, count(*) AS rows FROM ${this.#sql} WHERE embedding_id <> $1 GROUP BY 1 ORDER BY 2 DESC LIMIT 1`,
      [embeddingId],
    );
    return other && { embeddingId: other.embedding_id, rows: Number(other.rows) };
  }

  /** Every embedding_id that occurs in the table. */
  async kinds(): Promise<string[]> {
    const rows = await this.database.query<{ embedding_id: string }>(`SELECT DISTINCT embedding_id FROM ${this.#sql} ORDER BY 1`);
    return rows.map((row) => row.embedding_id);
  }

  /** On disk, with its indexes. */
  async bytes(): Promise<number> {
    const [found] = await this.database.query<{ bytes: string }>('SELECT pg_total_relation_size(to_regclass($1)) AS bytes', [this.#sql]);
    return Number(found?.bytes);
  }

  /** The rows with these ids; an id that the database cannot hold has none. */
  async rows(ids: readonly string[]): Promise<Map<string, StoredRow>> {
    const found: StoredRow[] = [];
    await eachHalf(ids, async (some) => {
      const columns = 'id, location, sha256, embedding_id';
      found.push(...(await this.database.query<StoredRow>(`SELECT ${columns} FROM ${this.#sql} WHERE id = ANY($1::text[])`, [some])));
    });
    return new Map(found.map((row) => [row.id, row]));
  }

  /** Stores the rows, whose ids differ, and returns those that the database refuses. Repeating it changes nothing. */
  async upsert(rows: readonly NewRow[]): Promise<RefusedRow[]> {
    const refused = await eachHalf(rows, async (some) => {
      const values = NAMES.map((name) => some.map((row) => (name === 'embedding' ? vectorLiteral(row.embedding) : row[name])));
      await this.database.query(
        `INSERT INTO ${this.#sql} (${NAMES.join(', ')})
         SELECT * FROM unnest(${NAMES.map((name, i) => `$${i + 1}::${name === 'embedding' ? 'vector' : 'text'}[]`).join(', ')})
         ON CONFLICT (id) DO UPDATE SET (${OTHERS.join(', ')}) = (${OTHERS.map((name) => `excluded.${name}`).join(', ')})`,
        values,
      );
    });
    const found = refused.map(({ item: row, error }): RefusedRow => {
      const code = codeOf(error).startsWith('23') ? 'refused_row' : 'bad_entry';
      return { row, code, message: `the database refuses it: ${error.message}` };
    });
    // One row against a constraint is that row's fault; all of the first show a table that was made for others.
    if (!this.#hasStored && rows.length > 1 && found.length === rows.length && found[0]?.code === 'refused_row') {
      throw new RefusedError(`No row fits the table ${this.name}; ${found[0].message}.`);
    }
    this.#hasStored = true;
    return found;
  }

  /** The nearest rows with this embedding_id, best first: as many as there are, up to `limit`. */
  async nearest(vector: Float32Array, embeddingId: string, limit: number): Promise<Hit[]> {
    const index = (await indexesOf(this.database, this.name)).find(({ isValid }) => isValid);
    const { distance, taken } = KINDS[index?.kind ?? 'vector'];
    const values = [vectorLiteral(vector), embeddingId, limit];
    const rows = `SELECT id, location, embedding <=> $1::vector AS distance FROM ${this.#sql} WHERE embedding_id = $2`;
    const best = (from: string): string => `SELECT id, location, 1 - distance AS similarity FROM (${from}) AS r ORDER BY distance LIMIT $3`;
    return this.database.transaction(async (client) => {
      if (limit <= MAX_EF_SEARCH) {
        // An HNSW scan returns at most ef_search rows, 40 by default, whatever LIMIT says.
        await client.query(`SET LOCAL hnsw.ef_search = ${efSearch(taken(limit))}`);
        // Whatever the index knows of the vectors: the full ones tell which of its rows are nearest.
        const nearest = `${rows} ORDER BY ${distance(vector.length, '$1::vector')} LIMIT ${taken(limit)}`;
        const hits = (await client.query<Hit>(best(nearest), values)).rows;
        if (hits.length === limit) return hits;
        // Rows of another model, or rows replaced and not yet vacuumed, are among those ef_search, and fall out only then.
      }
      // Every row compared: with OFFSET no index can give the order.
      return (await client.query<Hit>(best(`${rows} OFFSET 0`), values)).rows;
    });
  }
}

/**
 * Calls `run` with all items; when the database refuses what is in them, with each half, down to the single items that it refuses,
 * which are returned. Every other error is thrown.
 */
async function eachHalf<T>(items: readonly T[], run: (items: readonly T[]) => Promise<void>): Promise<{ item: T; error: Error }[]> {
  try {
    await run(items);
    return [];
  } catch (error) {
    const [only] = items;
    if (only === undefined || !(error instanceof Error) || !OF_ROWS.test(codeOf(error))) throw error;
    if (items.length === 1) return [{ item: only, error }];
    const middle = Math.ceil(items.length / 2);
    return [...(await eachHalf(items.slice(0, middle), run)), ...(await eachHalf(items.slice(middle), run))];
  }
}

const codeOf = (error: Error): string => ('code' in error && typeof error.code === 'string' ? error.code : '');
