/** The table of vectors: its shape, what is in it, and how rows get there. All SQL of the job is here. */
import type { Database } from './database.ts';
import { RefusedError } from './errors.ts';

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

const COLUMNS = ['id', 'location', 'sha256', 'embedding_id', 'embedding'];
const MAX_EF_SEARCH = 1000;

export const vectorLiteral = (vector: Float32Array): string => `[${vector.join(',')}]`;

export class VectorTable {
  readonly #sql: string;

  /** `name` is a plain identifier, or schema.identifier. */
  constructor(
    readonly database: Database,
    readonly name: string,
  ) {
    this.#sql = name.split('.').map((part) => `"${part}"`).join('.');
  }

  async create(dimensions: number): Promise<void> {
    await this.database.transaction(async (client) => {
      // IF NOT EXISTS is no protection against a second job that creates the same at the same moment.
      await client.query("SELECT pg_advisory_xact_lock(hashtext('clipsrv-catalogue'))");
      await client.query('CREATE EXTENSION IF NOT EXISTS vector');
      await client.query(`CREATE TABLE IF NOT EXISTS ${this.#sql} (
        id text PRIMARY KEY,
        location text NOT NULL,
        sha256 text NOT NULL,
        embedding_id text NOT NULL,
        embedding vector(${dimensions}) NOT NULL
      )`);
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
    const missing = COLUMNS.filter((column) => !columns.some(({ name }) => name === column));
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

  async rows(ids: readonly string[]): Promise<Map<string, StoredRow>> {
    const found = await this.database.query<StoredRow>(
      `SELECT id, location, sha256, embedding_id FROM ${this.#sql} WHERE id = ANY($1::text[])`,
      [ids],
    );
    return new Map(found.map((row) => [row.id, row]));
  }

  /** All rows or none; repeating it changes nothing. Ids must differ from one another. */
  async upsert(rows: readonly NewRow[]): Promise<void> {
    const column = <K extends keyof NewRow>(key: K): NewRow[K][] => rows.map((row) => row[key]);
    await this.database.query(
      `INSERT INTO ${this.#sql} (${COLUMNS.join(', ')})
       SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::vector[])
       ON CONFLICT (id) DO UPDATE SET
         (location, sha256, embedding_id, embedding) =
         (excluded.location, excluded.sha256, excluded.embedding_id, excluded.embedding)`,
      [column('id'), column('location'), column('sha256'), column('embedding_id'), column('embedding').map(vectorLiteral)],
    );
  }

  /** The HNSW index for cosine distance; built after loading, which is much faster than keeping it up while loading. */
  async createIndex(): Promise<void> {
    const index = `${this.name.split('.').at(-1)}_embedding_hnsw`;
    await this.database.transaction((client) =>
      client.query(`CREATE INDEX IF NOT EXISTS "${index}" ON ${this.#sql} USING hnsw (embedding vector_cosine_ops)`),
    );
  }

  /** The nearest rows with this embedding_id, best first. */
  async nearest(vector: Float32Array, embeddingId: string, limit: number): Promise<Hit[]> {
    return this.database.transaction(async (client) => {
      // An HNSW scan returns at most ef_search rows, 40 by default, whatever LIMIT says.
      await client.query(
        limit <= MAX_EF_SEARCH
          ? `SET LOCAL hnsw.ef_search = ${Math.max(100, limit)}`
          : 'SET LOCAL enable_indexscan = off',
      );
      const { rows } = await client.query<Hit>(
        `SELECT id, location, 1 - (embedding <=> $1::vector) AS similarity FROM ${this.#sql}
         WHERE embedding_id = $2 ORDER BY embedding <=> $1::vector LIMIT $3`,
        [vectorLiteral(vector), embeddingId, limit],
      );
      return rows;
    });
  }
}
