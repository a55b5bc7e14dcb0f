/** Two tables of one catalogue in the database itself: what is written, deleted and shown, by the oldest and the newest pgvector. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { Database } from '../src/database.ts';
import { publish, sidesOf, type Side } from '../src/tables/catalogue.ts';
import { Overtaken, Passage } from '../src/tables/due.ts';
import { VectorTable } from '../src/tables/table.ts';
import { dropTwin, isLockedOut, makeCurrent, makeTwin } from '../src/tables/twin.ts';
import { INSTALLS, Postgres } from './support/postgres.ts';

const vector = (dimensions: number, first: number): string => `[${Array.from({ length: dimensions }, (_, i) => (i === 0 ? first : 1)).join(',')}]`;

for (const version of Object.keys(INSTALLS) as (keyof typeof INSTALLS)[]) {
  describe(`pgvector, the ${version}`, () => {
    let postgres: Postgres;
    let database: Database;
    before(async () => {
      postgres = await Postgres.start(version);
      database = new Database({ url: postgres.url, patienceMs: 5000 });
    });
    after(async () => {
      await database.close();
      await postgres.remove();
    });

    /** A catalogue of `rows` rows with 3 dimensions that moves to a model with 5. */
    async function moving(name: string, rows = 0, more = ''): Promise<{ old: Side; young: Side; there: Passage; back: Passage }> {
      const old: Side = { table: name, model: 'old', embeddingId: 'a', dimensions: 3, isCurrent: true };
      const young: Side = { table: `${name}_young`, model: 'young', embeddingId: 'b', dimensions: 5, isCurrent: false };
      await new VectorTable(database, name).create(3);
      if (more !== '') await postgres.query(more);
      await postgres.query(`INSERT INTO ${name} (id, location, sha256, embedding_id, embedding) SELECT 'p' || i, i || '.png', 's' || i, 'a', '${vector(3, 0)}' FROM generate_series(1, ${rows}) AS i`);
      await publish(database, name, { ...old, embeddingId: 'of a model before' });
      await makeTwin(database, name, old, young);
      return { old, young, there: new Passage(database, name, old, young), back: new Passage(database, name, young, old) };
    }

    const embedding = Float32Array.of(1, 1, 1, 1, 1);
    const ids = async (table: string): Promise<string[]> => (await postgres.query<{ id: string }>(`SELECT id FROM ${table} ORDER BY id`)).map(({ id }) => id);
    const all = async <T>(rows: AsyncIterable<T>): Promise<T[]> => {
      const found: T[] = [];
      for await (const row of rows) found.push(row);
      return found;
    };

    test('what is missing and what was written is told apart, and each is carried once', async () => {
      const { there, back } = await moving('carried', 600);
      assert.deepEqual([await there.missing(), await there.changed(), (await all(there.missingRows())).length], [600, 0, 600]);
      const due = await all(there.missingRows());
      assert.equal(await there.carry(due.slice(0, 599).map((row) => ({ ...row, embedding }))), 599);
      await postgres.query("INSERT INTO carried VALUES ('new', 'n.png', 'sn', 'a', '[1,2,3]'); UPDATE carried SET sha256 = 'changed' WHERE id = 'p7'; UPDATE carried SET location = 'moved.png' WHERE id = 'p8'");
      const changed = await all(there.changedRows());
      assert.deepEqual(changed.map(({ id, hasVector }) => [id, hasVector]), [['new', false], ['p7', false], ['p8', true]]);
      assert.equal(await there.carry(changed.map((row) => ({ ...row, embedding: row.hasVector ? undefined : embedding }))), 3);
      assert.deepEqual([await there.missing(), await there.changed(), await back.missing(), await back.changed()], [1, 0, 0, 0]);
      const [moved] = await postgres.query("SELECT location, embedding_id, embedding::text FROM carried_young WHERE id = 'p8'");
      assert.deepEqual(moved, { location: 'moved.png', embedding_id: 'b', embedding: '[1,1,1,1,1]' });
    });

    test('a row that changed, went, or is being changed while its image was embedded is not carried', async () => {
      const { there } = await moving('racing', 4);
      const rows = (await all(there.missingRows())).map((row) => ({ ...row, embedding }));
      const shop = new pg.Client({ connectionString: postgres.url });
      await shop.connect();
      await shop.query("BEGIN; UPDATE racing SET sha256 = 'x' WHERE id = 'p1'");
      await postgres.query("DELETE FROM racing WHERE id = 'p2'; UPDATE racing SET sha256 = 'y' WHERE id = 'p3'");
      assert.equal(await there.carry(rows), 1);
      await shop.query('COMMIT');
      await shop.end();
      assert.deepEqual(await ids('racing_young'), ['p4']);
      assert.deepEqual((await all(there.changedRows())).map(({ id, sha256 }) => [id, sha256]).sort(), [['p1', 'x'], ['p3', 'y']]);
    });

    test('who writes to the other table meanwhile has the last word', async () => {
      const { there, back } = await moving('late', 2);
      const rows = (await all(there.missingRows())).map((row) => ({ ...row, embedding }));
      await postgres.query(`SELECT late_put('p1', 'q.png', 'later', 'b', '${vector(5, 9)}')`);
      assert.equal(await there.carry(rows), 1);
      assert.equal(await there.missing(), 0);
      assert.deepEqual((await all(back.changedRows())).map(({ id, sha256 }) => [id, sha256]), [['p1', 'later']]);
      // In the very moment: the writer holds the row until we wait for it, and then ends.
      const shop = new pg.Client({ connectionString: postgres.url });
      await shop.connect();
      await postgres.query("UPDATE late SET sha256 = 'z' WHERE id = 'p2'; DELETE FROM late_changes");
      await shop.query(`BEGIN; SELECT late_put('p2', 'q.png', 'last', 'b', '${vector(5, 9)}')`);
      const carried = there.carry([{ id: 'p2', sha256: 'z', embedding }]);
      const outcome = carried.then((n) => `carried ${n}`, (error: unknown) => (error instanceof Overtaken ? 'overtaken' : isLockedOut(error) ? 'locked out' : error));
      for (let waiting = 0; waiting === 0 && (await Promise.race([outcome, delay(5)])) === undefined; ) {
        waiting = (await postgres.query("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'")).length;
      }
      await shop.query('COMMIT');
      await shop.end();
      assert.ok(['overtaken', 'locked out'].includes((await outcome) as string), String(await outcome));
      assert.deepEqual(await postgres.query("SELECT sha256 FROM late_young WHERE id = 'p2'"), [{ sha256: 'last' }]);
    });

    test('what is deleted, renamed or emptied in one table is so in both', async () => {
      const { there } = await moving('gone', 5);
      await there.carry((await all(there.missingRows())).map((row) => ({ ...row, embedding })));
      await postgres.query("DELETE FROM gone WHERE id = 'p1'; DELETE FROM gone_young WHERE id = 'p2'; UPDATE gone SET id = 'q3' WHERE id = 'p3'");
      assert.deepEqual([await ids('gone'), await ids('gone_young')], [['p4', 'p5', 'q3'], ['p4', 'p5']]);
      assert.deepEqual((await all(there.changedRows())).map(({ id }) => id), ['q3']);
      await postgres.query('TRUNCATE gone');
      assert.deepEqual([await ids('gone_young'), await there.changed()], [[], 0]);
    });

    test('a query with the other model\'s vector finds nothing, fails never, and prepared statements outlive the switch', async () => {
      const { old, young, there } = await moving('shown', 3);
      await there.carry((await all(there.missingRows())).map((row) => ({ ...row, embedding })));
      for (const { table } of [old, young]) await postgres.query(`CREATE INDEX ${table}_embedding_hnsw ON ${table} USING hnsw (embedding vector_cosine_ops)`);
      const shop = new pg.Client({ connectionString: postgres.url });
      await shop.connect();
      await shop.query('SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan');
      const ask = async (query: string, embeddingId: string): Promise<number> =>
        (await shop.query({ name: 'q', text: 'SELECT * FROM shown_current WHERE embedding_id = $2 ORDER BY embedding <=> $1 LIMIT 2', values: [query, embeddingId] })).rows.length;
      const both = async (): Promise<number[]> => [await ask(vector(3, 1), 'a'), await ask(vector(5, 1), 'b')];
      assert.deepEqual(await both(), [2, 0]);
      const plan = await shop.query("EXPLAIN SELECT id FROM shown_current WHERE embedding_id = 'a' ORDER BY embedding <=> '[1,1,1]' LIMIT 2");
      assert.match(JSON.stringify(plan.rows), /Index Scan using shown_embedding_hnsw/);
      await makeCurrent(database, 'shown', young);
      assert.deepEqual(await both(), [0, 2]);
      assert.deepEqual((await sidesOf(database, 'shown')).map(({ model, isCurrent }) => [model, isCurrent]), [['old', false], ['young', true]]);
      await makeCurrent(database, 'shown', old);
      assert.deepEqual(await both(), [2, 0]);
      await shop.end();
    });

    test('a switch does not keep anyone waiting behind it', async () => {
      const { young } = await moving('patient', 1);
      const reader = new pg.Client({ connectionString: postgres.url });
      await reader.connect();
      await reader.query('BEGIN; SELECT * FROM patient_current');
      const switched = makeCurrent(database, 'patient', young);
      // With the switch waiting for the reader, queries that come after it are answered again and again.
      for (let i = 0; i < 5; i++) assert.equal((await postgres.query('SELECT * FROM patient_current')).length, 1);
      await reader.query('COMMIT');
      await reader.end();
      await switched;
      assert.deepEqual(await postgres.query('SELECT model FROM patient_models WHERE is_current'), [{ model: 'young' }]);
    });

    test('the second table has the first one\'s columns, indexes, keys and rights, and at the end its name', async () => {
      await postgres.query('CREATE TABLE shops (name text PRIMARY KEY); INSERT INTO shops VALUES (\'s\'); CREATE ROLE writer LOGIN; CREATE ROLE reader LOGIN');
      const { old, young, there } = await moving('own', 2, `ALTER TABLE own ADD price int, ADD shop text REFERENCES shops ON DELETE CASCADE, ADD CHECK (price > 0);
        CREATE INDEX own_price ON own (price); CREATE INDEX mine ON own USING hnsw (embedding vector_cosine_ops) WITH (m = 5);
        CREATE INDEX lists ON own USING ivfflat (embedding vector_cosine_ops); GRANT SELECT, INSERT, UPDATE, DELETE ON own TO writer; GRANT SELECT ON own TO reader`);
      await postgres.query("SET ROLE writer; INSERT INTO own VALUES ('w', 'w.png', 'sw', 'a', '[1,2,3]', 7, 's')");
      for (const rows of [there.missingRows(), there.changedRows()]) await there.carry((await all(rows)).map((row) => ({ ...row, embedding })));
      assert.deepEqual(await postgres.query("SELECT price, shop FROM own_young WHERE id = 'w'"), [{ price: 7, shop: 's' }]);
      await postgres.query("UPDATE own SET price = 8 WHERE id = 'w'");
      const [dear] = await all(there.changedRows());
      await there.carry([{ id: 'w', sha256: dear?.sha256 ?? '', embedding: undefined }]);
      assert.deepEqual(await postgres.query("SELECT indexdef LIKE '%m=''5''%' AS m FROM pg_indexes WHERE indexname = 'own_young_embedding_hnsw'"), [{ m: true }]);
      await makeCurrent(database, 'own', young);
      for (const role of ['writer', 'reader']) await postgres.query(`SET ROLE ${role}; SELECT price FROM own_current; SELECT model FROM own_models`);
      await dropTwin(database, 'own', old, young);
      assert.deepEqual(await postgres.query("SELECT price, embedding_id FROM own WHERE id = 'w'"), [{ price: 8, embedding_id: 'b' }]);
      const indexes = await postgres.query<{ indexname: string }>("SELECT indexname FROM pg_indexes WHERE tablename = 'own' ORDER BY 1");
      assert.deepEqual(indexes.map(({ indexname }) => indexname), ['own_embedding_hnsw', 'own_pkey', 'own_price_idx']);
      await assert.rejects(postgres.query("INSERT INTO own VALUES ('x', 'w.png', 'sw', 'b', '[1,2,3,4,5]', 7, 'nobody')"), /foreign key/);
      await assert.rejects(postgres.query("INSERT INTO own VALUES ('x', 'w.png', 'sw', 'b', '[1,2,3,4,5]', 0, 's')"), /check constraint/);
      await postgres.query("DELETE FROM shops; SET ROLE writer; DELETE FROM own WHERE id = 'p1'");
      assert.deepEqual(await ids('own_current'), ['p2']);
      assert.deepEqual(await postgres.query("SELECT count(*)::int AS n FROM pg_trigger WHERE tgname LIKE 'clipsrv%' AND tgrelid = 'own'::regclass"), [{ n: 0 }]);
    });

    test('the table that counts stays when the other is given up, and no vector of the other is taken any more', async () => {
      const { old, young } = await moving('given_up', 1);
      await dropTwin(database, 'given_up', young, old);
      await postgres.query(`SELECT given_up_put('q', 'q.png', 's', 'a', '${vector(3, 1)}')`);
      await assert.rejects(postgres.query(`SELECT given_up_put('q', 'q.png', 's', 'b', '${vector(5, 1)}')`), /no table of this catalogue has vectors of embedding_id b/);
      assert.deepEqual(await ids('given_up_current'), ['p1', 'q']);
    });

    test('what would not be carried over is refused before anything is made', async () => {
      const cases: [string, string, RegExp][] = [
        ['secured', 'ALTER TABLE secured ENABLE ROW LEVEL SECURITY', /has row security/],
        ['triggered', 'CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$; CREATE TRIGGER mine BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION f()', /has triggers \(mine\)/],
      ];
      for (const [name, more, message] of cases) {
        await assert.rejects(moving(name, 1, more), { name: 'RefusedError', message });
        assert.deepEqual(await postgres.query(`SELECT to_regclass('${name}_young') AS a, to_regclass('${name}_changes') AS b`), [{ a: null, b: null }]);
      }
    });

    test('a table that others point to is not dropped, and a column added on the way is asked for', async () => {
      const { old, young, there } = await moving('pointed', 1);
      await postgres.query('CREATE TABLE tags (image text REFERENCES pointed)');
      await makeCurrent(database, 'pointed', young);
      await assert.rejects(dropTwin(database, 'pointed', old, young), { name: 'RefusedError', message: /pointed cannot be dropped.*tags/s });
      assert.equal((await sidesOf(database, 'pointed')).length, 2);
      await postgres.query('ALTER TABLE pointed ADD price int');
      await assert.rejects(there.carry([{ id: 'p1', sha256: 's1', embedding }]), { name: 'RefusedError', message: /has a column price/ });
    });

    test('in a schema of its own, with a long name, everything stays there', async () => {
      await postgres.query('CREATE SCHEMA IF NOT EXISTS "Shop"');
      const name = `Shop.${'Long'.repeat(15)}`;
      const old: Side = { table: name, model: 'old', embeddingId: 'a', dimensions: 3, isCurrent: true };
      const young: Side = { table: `Shop.${'Long'.repeat(9)}_young`, model: 'young', embeddingId: 'b', dimensions: 5, isCurrent: false };
      await new VectorTable(database, name).create(3);
      await makeTwin(database, name, old, young);
      const there = new Passage(database, name, old, young);
      await postgres.query(`INSERT INTO "Shop"."${'Long'.repeat(15)}" VALUES ('a', 'b', 'c', 'a', '[1,2,3]')`);
      assert.equal(await there.carry([{ id: 'a', sha256: 'c', embedding }]), 1);
      await makeCurrent(database, name, young);
      await dropTwin(database, name, old, young);
      assert.deepEqual(await postgres.query(`SELECT embedding_id FROM "Shop"."${'Long'.repeat(13)}Lon_current"`), [{ embedding_id: 'b' }]);
    });
  });
}
