/** What a watch does to tables beside embedding: rows of what is gone are deleted, a table is made to tell of its changes. */
import type { Database } from '../database.ts';
import { RefusedError } from '../errors.ts';
import { lock } from '../tables/catalogue.ts';
import { literal, quoted } from '../tables/names.ts';

/** Whoever notifies it wakes a watch. */
export const CHANNEL = 'clipsrv_watch';
const PAGE = 1000;

/** The ids of a table, in pages. */
export async function* idsOf(database: Database, table: string): AsyncGenerator<readonly string[]> {
  for (let last: string | null = null; ; ) {
    const page: { id: string }[] = await database.query<{ id: string }>(
      `SELECT id FROM ${quoted(table)} WHERE $1::text IS NULL OR id > $1 ORDER BY id LIMIT ${PAGE}`,
      [last],
    );
    yield page.map(({ id }) => id);
    last = page.at(-1)?.id ?? null;
    if (page.length < PAGE) return;
  }
}

/** Returns how many rows there were. Of a catalogue that moves to another model the triggers delete them from the other table too. */
export async function deleteRows(database: Database, table: string, ids: readonly string[]): Promise<number> {
  let deleted = 0;
  for (let start = 0; start < ids.length; start += PAGE) {
    const rows = await database.query(`DELETE FROM ${quoted(table)} WHERE id = ANY($1::text[]) RETURNING id`, [ids.slice(start, start + PAGE)]);
    deleted += rows.length;
  }
  return deleted;
}

/** Makes the trigger that notifies CHANNEL at each statement that changes `table`, if it is not there. Returns whether it was made. */
export async function makeTrigger(database: Database, table: string): Promise<boolean> {
  const name = quoted(table);
  const [found] = await database.query<{ there: boolean; has: boolean }>(
    `SELECT to_regclass($1) IS NOT NULL AS there, EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass($1) AND tgname = ${literal(CHANNEL)}) AS has`,
    [name],
  );
  if (!found?.there) throw new RefusedError(`There is no table ${table} for --trigger.`);
  if (found.has) return false;
  try {
    await database.transaction(async (client) => {
      await lock(client);
      await client.query(`CREATE OR REPLACE FUNCTION ${CHANNEL}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NOTIFY ${CHANNEL}; RETURN NULL; END $$`);
      await client.query(`CREATE TRIGGER ${CHANNEL} AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON ${name} FOR EACH STATEMENT EXECUTE FUNCTION ${CHANNEL}()`);
    });
  } catch (error) {
    const { code = '', message } = error as Error & { code?: string };
    if (!/^42/.test(code)) throw error;
    throw new RefusedError(`The trigger on ${table} was not made: ${message}. Let its owner make it, or NOTIFY ${CHANNEL} when it changes, and leave --trigger out.`);
  }
  return true;
}
