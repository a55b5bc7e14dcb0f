/**
 * What a shop asks, whatever tables are behind it: TABLE_models says which model's vectors count, TABLE_current shows them, TABLE_put
 * stores a row where vectors of its kind belong. One table is behind them, or two while there is a move from one model to another.
 */
import type pg from 'pg';
import { COLUMNS, LOCK } from '../contract.ts';
import type { Database } from '../database.ts';
import { RefusedError } from '../errors.ts';
import { bare, belonging, beside, literal, quoted } from './names.ts';

/** One model's vectors of a catalogue. */
export interface Side {
  /** With the schema, if the catalogue was named with one. */
  readonly table: string;
  readonly model: string;
  readonly embeddingId: string;
  readonly dimensions: number;
  readonly isCurrent: boolean;
}

interface ModelsRow {
  readonly table_name: string;
  readonly model: string;
  readonly embedding_id: string;
  readonly dimensions: number;
  readonly is_current: boolean;
}

/** The models of a catalogue, the oldest first; none where nothing was noted of it yet. */
export async function sidesOf(database: Database, catalogue: string): Promise<readonly Side[]> {
  const models = quoted(belonging(catalogue, 'models'));
  const [found] = await database.query<{ there: boolean }>('SELECT to_regclass($1) IS NOT NULL AS there', [models]);
  if (!found?.there) return [];
  const rows = await database.query<ModelsRow>(
    `SELECT table_name, model, embedding_id, dimensions, is_current FROM ${models} ORDER BY since, embedding_id`,
  );
  return rows.map((row) => ({
    table: beside(catalogue, row.table_name), model: row.model, embeddingId: row.embedding_id, dimensions: row.dimensions, isCurrent: row.is_current,
  }));
}

/** Notes that `side` is what counts in a catalogue of one table, and makes what a shop asks. */
export async function publish(database: Database, catalogue: string, side: Side): Promise<void> {
  await database.transaction(async (client) => {
    await lock(client);
    const { table, model, embeddingId, dimensions } = side;
    await makeModels(client, catalogue, table);
    const models = quoted(belonging(catalogue, 'models'));
    await client.query(`DELETE FROM ${models} WHERE embedding_id <> $1 AND table_name = $2`, [embeddingId, bare(table)]);
    await client.query(
      `INSERT INTO ${models} (embedding_id, model, dimensions, table_name, is_current) VALUES ($1, $2, $3, $4, true)
       ON CONFLICT (embedding_id) DO UPDATE SET model = excluded.model`,
      [embeddingId, model, dimensions, bare(table)],
    );
    await show(client, catalogue, side);
  });
}

/** Held while tables, views and functions are made: IF NOT EXISTS is no protection against a second job at the same moment. */
export const lock = (client: pg.PoolClient): Promise<unknown> => client.query('SELECT pg_advisory_xact_lock(hashtext($1))', [LOCK]);

/** The schema that a table is in, quoted: functions name it, for they run under whatever search_path there is then. */
export async function schemaOf(client: pg.PoolClient, table: string): Promise<string> {
  const { rows } = await client.query<{ schema: string }>('SELECT relnamespace::regnamespace::text AS schema FROM pg_class WHERE oid = to_regclass($1)', [quoted(table)]);
  return rows[0]?.schema ?? 'public';
}

/** TABLE_models and TABLE_put, in the schema of `table`. */
export async function makeModels(client: pg.PoolClient, catalogue: string, table: string): Promise<void> {
  const schema = await schemaOf(client, table);
  const within = (suffix: string): string => `${schema}.${quoted(bare(belonging(catalogue, suffix)))}`;
  const [models, put] = [within('models'), within('put')];
  await client.query(`CREATE TABLE IF NOT EXISTS ${models} (
    embedding_id text PRIMARY KEY,
    model        text NOT NULL,
    dimensions   integer NOT NULL,
    table_name   text NOT NULL UNIQUE,
    is_current   boolean NOT NULL,
    since        timestamptz NOT NULL DEFAULT clock_timestamp())`);
  await client.query(`CREATE UNIQUE INDEX IF NOT EXISTS "${bare(belonging(catalogue, 'models_one'))}" ON ${models} (is_current) WHERE is_current`);
  const names = Object.keys(COLUMNS);
  const others = names.filter((name) => name !== 'id');
  const upsert =
    `INSERT INTO %s (${names.join(', ')}) VALUES (${names.map((_, i) => `$${i + 1}`).join(', ')}) ON CONFLICT (id) DO UPDATE ` +
    `SET (${others.join(', ')}) = (${others.map((name) => `excluded.${name}`).join(', ')})`;
  await client.query(`
    CREATE OR REPLACE FUNCTION ${put}(id text, location text, sha256 text, embedding_id text, embedding vector) RETURNS void LANGUAGE plpgsql AS $put$
    DECLARE target text;
    BEGIN
      SELECT m.table_name INTO target FROM ${models} AS m WHERE m.embedding_id = $4;
      IF target IS NULL THEN
        RAISE EXCEPTION 'no table of this catalogue has vectors of embedding_id %', $4
          USING ERRCODE = 'invalid_parameter_value', HINT = 'ask ${bare(belonging(catalogue, 'models'))} for the model, and the server for its vector';
      END IF;
      EXECUTE format(${literal(upsert)}, ${literal(`${schema}.`)} || quote_ident(target)) USING $1, $2, $3, $4, $5;
    END $put$`);
}

/**
 * Lets TABLE_current show `side`. The embedding_id is a constant there: a query with a vector of another model and
 * `WHERE embedding_id = ...` is answered with no row, whatever the dimensions, and no row is compared. The vectors have no length as a type,
 * so that prepared statements go on across a change of models.
 */
export async function show(client: pg.PoolClient, catalogue: string, side: Side): Promise<void> {
  const view = quoted(belonging(catalogue, 'current'));
  const { rows } = await client.query<{ name: string }>(
    'SELECT attname AS name FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum',
    [quoted(side.table)],
  );
  const columns = rows.map(({ name }) =>
    name === 'embedding_id' ? `${literal(side.embeddingId)}::text AS embedding_id`
    : name === 'embedding' ? 't.embedding::vector AS embedding'
    : `t."${name.replaceAll('"', '""')}"`);
  const definition = `SELECT ${columns.join(', ')} FROM ${quoted(side.table)} AS t WHERE t.embedding_id = ${literal(side.embeddingId)}`;
  await client.query(`CREATE OR REPLACE VIEW ${view} AS ${definition}`).catch((error: Error & { code?: string }) => {
    if (error.code !== '42P16') throw error; // invalid_table_definition
    throw new RefusedError(`${belonging(catalogue, 'current')} cannot show ${side.table}: ${error.message}. DROP VIEW it, and run this again.`);
  });
}
