/** What is in one table of a catalogue and not, or not as it is now, in the other; and how it gets there. */
import type { Database } from '../database.ts';
import { RefusedError } from '../errors.ts';
import type { Side } from './catalogue.ts';
import { bare, belonging, literal, quoted } from './names.ts';
import { vectorLiteral } from './table.ts';
import { BOTH } from './twin.ts';

/** A row of `from` that is due in the other table. */
export interface DueRow {
  readonly id: string;
  readonly location: string;
  readonly sha256: string;
  /** The other table has this content's vector: what else the row says is due, and no image need be read. */
  readonly hasVector: boolean;
}

export interface Vector {
  readonly id: string;
  readonly sha256: string;
  /** Undefined: the other table's own vector of this content stays. */
  readonly embedding: Float32Array | undefined;
}

const PAGE = 256;
/** Shorter than deadlock_timeout (1 s): where two wait for one another it is we who let go, never the shop. */
const LOCK_TIMEOUT_MS = 400;

/** The way from one table of a catalogue to the other. */
export class Passage {
  readonly #changes: string;
  readonly #from: string;
  readonly #to: string;

  constructor(
    readonly database: Database,
    catalogue: string,
    readonly from: Side,
    readonly to: Side,
  ) {
    this.#changes = quoted(belonging(catalogue, 'changes'));
    this.#from = quoted(from.table);
    this.#to = quoted(to.table);
  }

  /** Rows of `from` whose content has no vector in `to`. */
  async missing(): Promise<number> {
    const [found] = await this.database.query<{ rows: string }>(`SELECT count(*) AS rows ${this.#missing()}`);
    return Number(found?.rows);
  }

  /** Rows written to `from`, and not yet carried over. */
  async changed(): Promise<number> {
    const [found] = await this.database.query<{ rows: string }>(
      `SELECT count(*) AS rows FROM ${this.#changes} AS c JOIN ${this.#from} AS f USING (id) WHERE c.table_name = $1`,
      [bare(this.from.table)],
    );
    return Number(found?.rows);
  }

  /** The missing, by id; each once, whatever happens to them meanwhile. */
  async *missingRows(): AsyncGenerator<DueRow> {
    for (let last: string | null = null; ; ) {
      const page: DueRow[] = await this.database.query<DueRow>(
        `SELECT f.id, f.location, f.sha256, false AS "hasVector" ${this.#missing()} AND ($1::text IS NULL OR f.id > $1) ORDER BY f.id LIMIT ${PAGE}`,
        [last],
      );
      yield* page;
      last = page.at(-1)?.id ?? null;
      if (page.length < PAGE) return;
    }
  }

  /** What was written to `from` and not yet carried over, in the order of writing; each state of a row once. */
  async *changedRows(): AsyncGenerator<DueRow> {
    for (let last = '0'; ; ) {
      const page: (DueRow & { version: string })[] = await this.database.query<DueRow & { version: string }>(
        `SELECT c.version::text, f.id, f.location, f.sha256, coalesce(t.sha256 = f.sha256, false) AS "hasVector"
         FROM ${this.#changes} AS c JOIN ${this.#from} AS f USING (id) LEFT JOIN ${this.#to} AS t USING (id)
         WHERE c.table_name = $1 AND c.version > $2 ORDER BY c.version LIMIT ${PAGE}`,
        [bare(this.from.table), last],
      );
      yield* page;
      last = page.at(-1)?.version ?? last;
      if (page.length < PAGE) return;
    }
  }

  /**
   * Writes the rows of these ids to `to`, each with its vector, if `from` still has them with this content. Rows that someone is changing
   * right now, or that were written to `to` later than to `from`, are left for the next time. Returns how many were written.
   */
  async carry(vectors: readonly Vector[]): Promise<number> {
    const columns = await this.#columns();
    const others = columns.filter((name) => name !== 'id');
    const set = [...others, 'embedding_id', 'embedding'];
    const given = `unnest($1::text[], $2::text[], $3::vector[]) AS v (id, sha256, embedding)`;
    return this.database.transaction(async (client) => {
      await client.query(`SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}`);
      await client.query(BOTH);
      const values = [vectors.map(({ id }) => id), vectors.map(({ sha256 }) => sha256), vectors.map(({ embedding }) => (embedding === undefined ? null : vectorLiteral(embedding)))];
      const { rows } = await client.query<{ id: string }>(
        `WITH locked AS (SELECT f.*, v.embedding AS made FROM ${this.#from} AS f JOIN ${given} ON v.id = f.id AND v.sha256 = f.sha256
                         WHERE NOT EXISTS (SELECT FROM ${this.#changes} AS c WHERE c.id = f.id AND c.table_name = $5)
                         FOR SHARE OF f SKIP LOCKED),
              ready AS (SELECT l.*, coalesce(l.made, t.embedding) AS vector FROM locked AS l LEFT JOIN ${this.#to} AS t ON t.id = l.id AND t.sha256 = l.sha256)
         INSERT INTO ${this.#to} (${columns.join(', ')}, embedding_id, embedding) OVERRIDING SYSTEM VALUE
         SELECT ${columns.join(', ')}, $4, vector FROM ready WHERE vector IS NOT NULL
         ON CONFLICT (id) DO UPDATE SET (${set.join(', ')}) = (${set.map((name) => `excluded.${name}`).join(', ')})
         RETURNING id`,
        [...values, this.to.embeddingId, bare(this.to.table)],
      );
      const written = rows.map(({ id }) => id);
      // Whoever wrote to the other table while we waited for it has the last word.
      const { rowCount: overtaken } = await client.query(`SELECT FROM ${this.#changes} WHERE id = ANY($1) AND table_name = $2`, [written, bare(this.to.table)]);
      if (overtaken !== 0) throw new Overtaken();
      await client.query(`DELETE FROM ${this.#changes} WHERE id = ANY($1) AND table_name = $2`, [written, bare(this.from.table)]);
      return written.length;
    });
  }

  #missing(): string {
    return `FROM ${this.#from} AS f LEFT JOIN ${this.#to} AS t ON t.id = f.id WHERE (t.id IS NULL OR t.sha256 <> f.sha256)
            AND NOT EXISTS (SELECT FROM ${this.#changes} AS c WHERE c.id = f.id AND c.table_name = ${literal(bare(this.to.table))})`;
  }

  /** The columns that both have alike, quoted. Throws RefusedError if a column was added to one of them. */
  async #columns(): Promise<string[]> {
    const rows = await this.database.query<{ name: string; tables: number }>(
      `SELECT quote_ident(attname) AS name, count(*)::int AS tables FROM pg_attribute
       WHERE attrelid IN (to_regclass($1), to_regclass($2)) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
       AND attname NOT IN ('embedding', 'embedding_id') GROUP BY attname ORDER BY min(attnum)`,
      [this.#from, this.#to],
    );
    const odd = rows.find(({ tables }) => tables !== 2);
    if (odd !== undefined) throw new RefusedError(`Only one of ${this.from.table} and ${this.to.table} has a column ${odd.name}: give it to the other too.`);
    return rows.map(({ name }) => name);
  }
}

/** A row was written to the other table in the very moment: nothing was carried. */
export class Overtaken extends Error {
  override readonly name = 'Overtaken';
}
