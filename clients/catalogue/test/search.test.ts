/** What a search finds in a table that holds more than the rows asked for, by the oldest and the newest pgvector. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Database } from '../src/database.ts';
import { settingsFor } from '../src/indexes/kinds.ts';
import { hnsw, makeIndex } from '../src/indexes/make.ts';
import { VectorTable } from '../src/tables/table.ts';
import { INSTALLS, Postgres } from './support/postgres.ts';

const DIMENSIONS = 16;
const QUERY = Float32Array.from({ length: DIMENSIONS }, (_, i) => (i === 0 ? 1 : 0));

for (const version of Object.keys(INSTALLS) as (keyof typeof INSTALLS)[]) {
  describe(`pgvector, the ${version}`, () => {
    let postgres: Postgres;
    let database: Database;

    before(async () => {
      postgres = await Postgres.start(version);
      // In tables as small as these the planner would compare every row by itself, and there would be nothing to prove.
      await postgres.query('ALTER ROLE postgres SET enable_seqscan = off');
      database = new Database({ url: postgres.url, patienceMs: 5000 });
    });
    after(async () => {
      await database.close();
      await postgres.remove();
    });

    /** `rows` of one embedding_id, spread about the query: the closer, the larger `pull`. */
    const fill = (table: string, prefix: string, embeddingId: string, rows: number, pull: number): Promise<unknown[]> =>
      postgres.query(`INSERT INTO ${table} SELECT '${prefix}' || i, 'x.png', '00', '${embeddingId}',
        (SELECT array_agg(random() - 0.5 + CASE WHEN k = 1 THEN ${pull} ELSE 0 * i END ORDER BY k) FROM generate_series(1, ${DIMENSIONS}) AS k)::vector
        FROM generate_series(1, ${rows}) AS i`);

    async function made(name: string): Promise<VectorTable> {
      const table = new VectorTable(database, name);
      await table.create(DIMENSIONS);
      await postgres.query(`ALTER TABLE ${name} SET (autovacuum_enabled = off)`);
      return table;
    }

    const indexed = ({ name }: VectorTable): Promise<void> =>
      makeIndex(database, hnsw(name, DIMENSIONS, 'vector', settingsFor(0)), () => undefined, new AbortController().signal);

    /** By comparing every row. */
    async function exact(name: string, embeddingId: string, limit: number): Promise<string[]> {
      const literal = `[${QUERY.join(',')}]`;
      const rows = await postgres.query<{ id: string }>(
        `SELECT id FROM (SELECT id, embedding <=> $1 AS distance FROM ${name} WHERE embedding_id = $2 OFFSET 0) AS r ORDER BY distance LIMIT ${limit}`,
        [literal, embeddingId],
      );
      return rows.map(({ id }) => id);
    }

    const ids = async (table: VectorTable, embeddingId: string, limit: number): Promise<string[]> =>
      (await table.nearest(QUERY, embeddingId, limit)).map(({ id }) => id);

    test('beside nearer rows of another model every row asked for is found, in order', async () => {
      const table = await made('mixed');
      await fill('mixed', 'old', 'another', 900, 3);
      await fill('mixed', 'new', 'ours', 150, 0);
      await indexed(table);
      for (const limit of [10, 50, 150]) assert.deepEqual(await ids(table, 'ours', limit), await exact('mixed', 'ours', limit), String(limit));
      assert.equal((await ids(table, 'ours', 500)).length, 150);
      assert.deepEqual(await ids(table, 'nobody', 10), []);
    });

    test('right after every row was replaced, before a vacuum, every row asked for is found', async () => {
      const table = await made('replaced');
      await fill('replaced', 'p', 'another', 900, 3);
      await indexed(table);
      await postgres.query(`UPDATE replaced SET embedding_id = 'ours', embedding =
        (SELECT array_agg(random() - 0.5 + length(id) * 0 ORDER BY k) FROM generate_series(1, ${DIMENSIONS}) AS k)::vector`);
      for (const limit of [10, 100]) assert.deepEqual(await ids(table, 'ours', limit), await exact('replaced', 'ours', limit));
    });

    test('a table of one model is searched by its index', async () => {
      const table = await made('plain');
      await fill('plain', 'p', 'ours', 900, 0.3);
      await indexed(table);
      // A connection tells its counts when it ends; one that stays open, ten seconds later.
      const own = new Database({ url: postgres.url, patienceMs: 5000 });
      assert.equal((await ids(new VectorTable(own, 'plain'), 'ours', 20)).length, 20);
      await own.close();
      const scans = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'plain_embedding_hnsw' AND idx_scan > 0";
      for (let tries = 0; (await postgres.query(scans)).length === 0; tries++) {
        assert.ok(tries < 300, 'the index was not used');
        await delay(100);
      }
      assert.equal((await ids(table, 'ours', 1500)).length, 900);
    });
  });
}
