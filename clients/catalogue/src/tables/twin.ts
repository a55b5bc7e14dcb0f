/**
 * The second table of a catalogue that moves to another model: how it is made, kept in step, shown and dropped. While there are two,
 * triggers note in TABLE_changes whatever is written to either; what is deleted from one is deleted from both.
 */
import { withRetry } from 'clipsrv-client';
import type pg from 'pg';
import type { Database } from '../database.ts';
import { RefusedError } from '../errors.ts';
import { KINDS } from '../indexes/kinds.ts';
import { indexName } from '../indexes/make.ts';
import { lock, makeModels, schemaOf, show, type Side } from './catalogue.ts';
import { bare, belonging, literal, quoted } from './names.ts';

/** Transactions with this setting write to both tables themselves: nothing is noted. */
export const BOTH = "SELECT set_config('clipsrv.both', 'on', true)";
/** Nobody who reads or writes waits behind one of our locks for longer; after it we try again. */
const LOCK_TIMEOUT_MS = 1000;
const LOCK_PATIENCE_MS = 600_000;

/** In one transaction: the twin of `old` for the vectors of `side`, with everything that keeps the two in step. */
export async function makeTwin(database: Database, catalogue: string, old: Side, side: Side): Promise<void> {
  await whenFree(database, async (client) => {
    await lock(client);
    const [from, to] = [quoted(old.table), quoted(side.table)];
    await refuseWhatIsNotCarriedOver(client, old.table);
    await client.query(`CREATE TABLE ${to} (LIKE ${from} INCLUDING ALL)`);
    await makeIndexesFit(client, side);
    await copyForeignKeys(client, from, to);
    await copyRights(client, from, [to]);
    await makeModels(client, catalogue, old.table);
    await makeChanges(client, catalogue, old.table, side.table);
    const models = quoted(belonging(catalogue, 'models'));
    // Of a model whose vectors another program has replaced.
    await client.query(`DELETE FROM ${models} WHERE embedding_id <> $1`, [old.embeddingId]);
    for (const { model, embeddingId, dimensions, table, isCurrent } of [old, side]) {
      await client.query(
        `INSERT INTO ${models} (embedding_id, model, dimensions, table_name, is_current) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (embedding_id) DO UPDATE SET model = excluded.model`,
        [embeddingId, model, dimensions, bare(table), isCurrent],
      );
    }
    await show(client, catalogue, old);
    await copyRights(client, from, [models, quoted(belonging(catalogue, 'current'))], ['SELECT']);
  });
}

/** In one transaction: `side` is what TABLE_models names and TABLE_current shows. Writers wait for its milliseconds. */
export async function makeCurrent(database: Database, catalogue: string, side: Side): Promise<void> {
  await whenFree(database, async (client) => {
    await lock(client);
    const models = quoted(belonging(catalogue, 'models'));
    await client.query(`UPDATE ${models} SET is_current = false WHERE is_current AND embedding_id <> $1`, [side.embeddingId]);
    const { rowCount } = await client.query(`UPDATE ${models} SET is_current = true WHERE embedding_id = $1`, [side.embeddingId]);
    if (rowCount !== 1) throw new RefusedError(`${side.model} is no model of ${catalogue} any more.`);
    await show(client, catalogue, side);
  });
}

/** In one transaction: `gone` and what kept the two in step are dropped; what is left has the catalogue's own name again. */
export async function dropTwin(database: Database, catalogue: string, gone: Side, left: Side): Promise<void> {
  await whenFree(database, async (client) => {
    await lock(client);
    const models = quoted(belonging(catalogue, 'models'));
    for (const { table } of [gone, left]) await client.query(`DROP TRIGGER IF EXISTS clipsrv_changed ON ${quoted(table)}; DROP TRIGGER IF EXISTS clipsrv_emptied ON ${quoted(table)}`);
    await client.query(`DROP TABLE ${quoted(gone.table)}`).catch((error: Error & { code?: string; detail?: string }) => {
      if (error.code !== '2BP01') throw error; // dependent_objects_still_exist
      throw new RefusedError(`${gone.table} cannot be dropped: ${error.message}. ${error.detail ?? ''}`);
    });
    await client.query(`DROP FUNCTION ${quoted(belonging(catalogue, 'changed'))}(); DROP TABLE ${quoted(belonging(catalogue, 'changes'))}`);
    await client.query(`DELETE FROM ${models} WHERE embedding_id = $1`, [gone.embeddingId]);
    if (left.table === catalogue) return;
    await client.query(`ALTER TABLE ${quoted(left.table)} RENAME TO "${bare(catalogue)}"`);
    await client.query(`UPDATE ${models} SET table_name = $1 WHERE embedding_id = $2`, [bare(catalogue), left.embeddingId]);
    const { rows } = await client.query<{ name: string; bare: string }>(
      'SELECT indexrelid::regclass::text AS name, relname AS bare FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = to_regclass($1)',
      [quoted(catalogue)],
    );
    for (const { name, bare: old } of rows) {
      const renamed = old.replace(bare(left.table), bare(catalogue));
      if (renamed !== old) await client.query(`ALTER INDEX ${name} RENAME TO "${renamed}"`);
    }
  });
}

/** A transaction whose locks are given up after a moment, and tried again: nobody queues behind us for long. */
async function whenFree(database: Database, statements: (client: pg.PoolClient) => Promise<void>): Promise<void> {
  const once = (): Promise<void> =>
    database.transaction(async (client) => {
      await client.query(`SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}`);
      await statements(client);
    });
  const policy = { maxAttempts: Number.POSITIVE_INFINITY, baseDelayMs: 100, maxDelayMs: 2000, maxElapsedMs: LOCK_PATIENCE_MS };
  await withRetry(once, { policy, worthRetrying: isLockedOut });
}

/** lock_not_available */
export const isLockedOut = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === '55P03';

async function refuseWhatIsNotCarriedOver(client: pg.PoolClient, table: string): Promise<void> {
  const { rows } = await client.query<{ kind: string; secured: boolean; triggers: string[] }>(
    `SELECT relkind AS kind, relrowsecurity AS secured,
            array(SELECT tgname::text FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal) AS triggers
     FROM pg_class AS c WHERE oid = to_regclass($1)`,
    [quoted(table)],
  );
  const [{ kind, secured, triggers }] = rows as [{ kind: string; secured: boolean; triggers: string[] }];
  const what = kind !== 'r' ? 'is no plain table' : secured ? 'has row security' : triggers.length > 0 ? `has triggers (${triggers.join(', ')})` : undefined;
  if (what !== undefined) throw new RefusedError(`${table} ${what}, which a second table would not have: migrate does not carry that over.`);
}

/**
 * Gives the empty table of `side` its dimensions. HNSW indexes are kept, with their settings: to build one when the table is full would
 * take long. Those over another form of the vectors name the dimensions, and are made for the new ones. An IVFFlat index is not kept:
 * its lists are drawn from the rows there are.
 */
async function makeIndexesFit(client: pg.PoolClient, side: Side): Promise<void> {
  const to = quoted(side.table);
  const { rows } = await client.query<{ name: string; kind: string; operators: string; options: string[] | null; over: string | null }>(
    `SELECT c.oid::regclass::text AS name, m.amname AS kind, o.opcname AS operators, c.reloptions AS options, pg_get_expr(i.indexprs, i.indrelid) AS over
     FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS m ON m.oid = c.relam JOIN pg_opclass AS o ON o.oid = i.indclass[0]
     WHERE i.indrelid = to_regclass($1) AND m.amname IN ('hnsw', 'ivfflat') ORDER BY m.amname, c.oid`,
    [to],
  );
  const isMade = ({ kind, over }: (typeof rows)[number]): boolean => kind === 'hnsw' && over === null;
  for (const row of rows) if (!isMade(row)) await client.query(`DROP INDEX ${row.name}`);
  await client.query(`ALTER TABLE ${to} ALTER COLUMN embedding TYPE vector(${side.dimensions})`);
  const [first] = rows.filter(isMade);
  if (first !== undefined) await client.query(`ALTER INDEX ${first.name} RENAME TO "${indexName(side.table, 'vector')}"`);
  for (const { kind, operators, options, over } of rows) {
    const form = Object.values(KINDS).find((one) => kind === 'hnsw' && over !== null && one.operators === operators);
    if (form === undefined) continue;
    const settings = options === null ? '' : ` WITH (${options.join(', ')})`;
    await client.query(`CREATE INDEX IF NOT EXISTS "${indexName(side.table, form.name)}" ON ${to} USING hnsw (${form.key(side.dimensions)} ${operators})${settings}`);
  }
}

async function copyForeignKeys(client: pg.PoolClient, from: string, to: string): Promise<void> {
  const { rows } = await client.query<{ definition: string }>(
    "SELECT pg_get_constraintdef(oid) AS definition FROM pg_constraint WHERE conrelid = to_regclass($1) AND contype = 'f'",
    [from],
  );
  for (const { definition } of rows) await client.query(`ALTER TABLE ${to} ADD ${definition}`);
}

/** Whoever may do something with `from` may do the same with the others, or of it only what is among `only`. */
async function copyRights(client: pg.PoolClient, from: string, to: readonly string[], only?: readonly string[]): Promise<void> {
  const { rows } = await client.query<{ privilege: string; grantee: string | null }>(
    `SELECT a.privilege_type AS privilege, quote_ident(r.rolname) AS grantee FROM pg_class AS c, aclexplode(c.relacl) AS a
     LEFT JOIN pg_roles AS r ON r.oid = a.grantee WHERE c.oid = to_regclass($1) AND a.grantee <> c.relowner`,
    [from],
  );
  for (const { privilege, grantee } of rows) {
    if (only !== undefined && !only.includes(privilege)) continue;
    for (const name of to) await client.query(`GRANT ${privilege} ON ${name} TO ${grantee ?? 'PUBLIC'}`);
  }
}

/** TABLE_changes, and the triggers that fill it. They run with our rights: who writes to one table needs none on the other. */
async function makeChanges(client: pg.PoolClient, catalogue: string, ...tables: readonly [string, string]): Promise<void> {
  const schema = await schemaOf(client, tables[0]);
  const within = (name: string): string => `${schema}.${quoted(bare(name))}`;
  const [changes, changed] = [within(belonging(catalogue, 'changes')), within(belonging(catalogue, 'changed'))];
  await client.query(`CREATE TABLE ${changes} (id text PRIMARY KEY, table_name text NOT NULL, version bigserial NOT NULL)`);
  await client.query(`CREATE INDEX ON ${changes} (version)`);
  await client.query(`
    CREATE FUNCTION ${changed}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $changed$
    DECLARE was text := current_setting('clipsrv.both', true);
    BEGIN
      IF was = 'on' THEN RETURN NULL; END IF;
      IF TG_OP = 'TRUNCATE' THEN
        PERFORM set_config('clipsrv.both', 'on', true);
        EXECUTE format('DELETE FROM %s', TG_ARGV[0]);
        PERFORM set_config('clipsrv.both', coalesce(was, ''), true);
        DELETE FROM ${changes};
        RETURN NULL;
      END IF;
      IF TG_OP <> 'INSERT' AND (TG_OP = 'DELETE' OR OLD.id <> NEW.id) THEN
        PERFORM set_config('clipsrv.both', 'on', true);
        EXECUTE format('DELETE FROM %s WHERE id = $1', TG_ARGV[0]) USING OLD.id;
        PERFORM set_config('clipsrv.both', coalesce(was, ''), true);
        DELETE FROM ${changes} WHERE id = OLD.id;
      END IF;
      IF TG_OP <> 'DELETE' THEN
        INSERT INTO ${changes} (id, table_name) VALUES (NEW.id, TG_TABLE_NAME)
          ON CONFLICT (id) DO UPDATE SET table_name = excluded.table_name, version = excluded.version;
        PERFORM pg_notify(${literal(bare(belonging(catalogue, 'changes')))}, '');
      END IF;
      RETURN NULL;
    END $changed$`);
  for (const [i, table] of tables.entries()) {
    const other = literal(within(tables[1 - i] ?? ''));
    await client.query(`CREATE TRIGGER clipsrv_changed AFTER INSERT OR UPDATE OR DELETE ON ${quoted(table)} FOR EACH ROW EXECUTE FUNCTION ${changed}(${other})`);
    await client.query(`CREATE TRIGGER clipsrv_emptied AFTER TRUNCATE ON ${quoted(table)} FOR EACH STATEMENT EXECUTE FUNCTION ${changed}(${other})`);
  }
}
