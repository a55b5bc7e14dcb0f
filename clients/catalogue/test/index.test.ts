/** Indexes over smaller vectors: what they lose and save, how they are made, ended and found again, by the oldest and the newest pgvector. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { Database } from '../src/database.ts';
import { RefusedError } from '../src/errors.ts';
import { settingsFor, type KindName } from '../src/indexes/kinds.ts';
import { hnsw, indexesOf, makeIndex } from '../src/indexes/make.ts';
import { publish } from '../src/tables/catalogue.ts';
import { VectorTable } from '../src/tables/table.ts';
import { dropTwin, makeCurrent, makeTwin } from '../src/tables/twin.ts';
import { launch, type Outcome } from './support/cli.ts';
import { INSTALLS, Postgres } from './support/postgres.ts';

const DIMENSIONS = 64;

for (const version of Object.keys(INSTALLS) as (keyof typeof INSTALLS)[]) {
  describe(`pgvector, the ${version}`, () => {
    const isNew = version === 'newest';
    let postgres: Postgres;
    let database: Database;

    before(async () => {
      postgres = await Postgres.start(version);
      await postgres.query('ALTER ROLE postgres SET enable_seqscan = off');
      database = new Database({ url: postgres.url, patienceMs: 60_000 });
    });
    after(async () => {
      await database.close();
      await postgres.remove();
    });

    const run = (...args: string[]): Promise<Outcome> => launch(args, postgres.folder, { DATABASE_URL: postgres.url }).outcome;

    /** Rows of one model in some hundred clusters, as the vectors of images are. */
    async function filled(name: string, rows: number): Promise<VectorTable> {
      const table = new VectorTable(database, name);
      await table.create(DIMENSIONS);
      await postgres.query(`INSERT INTO ${name} SELECT 'p' || i, 'x.png', '00', 'ours',
        (SELECT array_agg(sin((i % 97) * 7.13 * k) + 0.6 * sin(i * 1.7 * k) ORDER BY k) FROM generate_series(1, ${DIMENSIONS}) AS k)::vector
        FROM generate_series(1, ${rows}) AS i`);
      return table;
    }

    const make = (table: string, kind: KindName, more: object = {}, database_ = database, signal = new AbortController().signal): Promise<void> =>
      makeIndex(database_, { ...hnsw(table, DIMENSIONS, kind, settingsFor(0)), ...more }, () => undefined, signal);

    const isValid = async (table: string): Promise<boolean[]> => (await indexesOf(database, table)).map((made) => made.isValid);

    const question = async (table: string): Promise<Float32Array> => {
      const [row] = await postgres.query<{ embedding: string }>(`SELECT embedding::text FROM ${table} WHERE id = 'p7'`);
      return Float32Array.from(JSON.parse(row?.embedding ?? '[]') as number[]);
    };

    if (isNew) {
      test('what each type loses and saves is told of the rows themselves, and nothing is made', async () => {
        await filled('told', 600);
        const { status, stdout, stderr } = await run('index', '--table', 'told', '--measure', '--sample', '25', '--json');
        assert.equal(status, 0, stderr);
        const figures = stdout.trim().split('\n').map((line) => JSON.parse(line) as { type: string; recall: number; index_bytes: number; rows: number; sample: number });
        assert.deepEqual(figures.map(({ type }) => type), ['vector', 'halfvec', 'bit']);
        const [full, half, bit] = figures as [typeof figures[0], typeof figures[0], typeof figures[0]];
        assert.deepEqual([full.rows, full.sample, full.recall], [600, 25, 1]);
        assert.ok(half.recall > 0.99 && bit.recall > 0.5, stdout);
        assert.ok(bit.index_bytes < half.index_bytes && half.index_bytes < full.index_bytes, stdout);
        assert.deepEqual(await indexesOf(database, 'told'), []);
      });

      test('an index of each smaller type is made, used, and ranked again by the full vectors', async () => {
        for (const kind of ['halfvec', 'bit'] as const) {
          const name = `small_${kind}`;
          const table = await filled(name, 500);
          const { status, stdout, stderr } = await run('index', '--table', name, '--type', kind, '--sample', '20', '--m', '8', '--ef-construction', '40', '--workers', '1', '--memory', '32MB');
          assert.equal(status, 0, stderr);
          assert.match(stdout, new RegExp(`${name}_embedding_hnsw_${kind}: .* MB, made in .* \\(m 8, ef_construction 40\\); search finds`));
          assert.match(stdout, new RegExp(`${kind} +an index of .* smaller; .* of recall@10 lost with \\d+ compared again`));
          const [plan] = await postgres.query<{ options: string[] }>(`SELECT reloptions AS options FROM pg_class WHERE relname = '${name}_embedding_hnsw_${kind}'`);
          assert.deepEqual(plan?.options, ['m=8', 'ef_construction=40']);
          const query = await question(name);
          const hits = await table.nearest(query, 'ours', 10);
          const exact = await postgres.query<{ id: string; similarity: number }>(
            `SELECT id, 1 - distance AS similarity FROM (SELECT id, embedding <=> $1 AS distance FROM ${name} OFFSET 0) AS r ORDER BY distance LIMIT 10`, [`[${query.join(',')}]`]);
          assert.deepEqual(hits.map(({ similarity }) => similarity.toFixed(5)), exact.map(({ similarity }) => similarity.toFixed(5)));
          await used(`${name}_embedding_hnsw_${kind}`);
          assert.equal((await table.nearest(query, 'ours', 500)).length, 500);
        }
      });

      test('the other type goes when it is told to, and what is there is not made again', async () => {
        const table = await filled('other', 60);
        await make('other', 'vector');
        const [first, second] = [await run('index', '--table', 'other', '--type', 'halfvec'), await run('index', '--table', 'other', '--type', 'halfvec', '--replace')];
        assert.match(first.stderr, /other_embedding_hnsw is there too \(.*\), and search goes through it: --replace drops it/);
        assert.match(second.stderr, /other_embedding_hnsw_halfvec is there already[^]*other_embedding_hnsw is dropped/);
        assert.deepEqual((await indexesOf(database, table.name)).map(({ kind }) => kind), ['halfvec']);
      });

      test('a table of another model gets the smaller index for its own dimensions, with its settings, and keeps it', async () => {
        await filled('moved', 30);
        await postgres.query('CREATE INDEX ON moved USING hnsw ((embedding::halfvec(64)) halfvec_cosine_ops) WITH (m = 5)');
        const [old, young] = [{ table: 'moved', model: 'old', embeddingId: 'ours', dimensions: DIMENSIONS, isCurrent: true }, { table: 'moved_young', model: 'young', embeddingId: 'b', dimensions: 3, isCurrent: false }];
        await publish(database, 'moved', old);
        await makeTwin(database, 'moved', old, young);
        await postgres.query("INSERT INTO moved_young VALUES ('a', 'a.png', '00', 'b', '[1,2,3]')");
        const [index] = await postgres.query<{ definition: string }>("SELECT indexdef AS definition FROM pg_indexes WHERE indexname = 'moved_young_embedding_hnsw_halfvec'");
        assert.match(index?.definition ?? '', /halfvec\(3\).*m='5'/);
        await makeCurrent(database, 'moved', young);
        await dropTwin(database, 'moved', old, young);
        assert.deepEqual((await indexesOf(database, 'moved')).map(({ name }) => name), ['moved_embedding_hnsw_halfvec']);
        assert.equal((await new VectorTable(database, 'moved').nearest(Float32Array.of(1, 2, 3), 'b', 1))[0]?.id, 'a');
      });
    } else {
      test('a pgvector that has no smaller types says so, and makes the index it can', async () => {
        await filled('plain', 60);
        const half = await run('index', '--table', 'plain', '--type', 'halfvec');
        assert.deepEqual([half.status, half.stdout], [2, '']);
        assert.match(half.stderr, /pgvector 0\.6\.\d has no halfvec and no bit index: they came with 0\.7\.0/);
        const measured = await run('index', '--table', 'plain', '--measure');
        assert.deepEqual([measured.status, measured.stdout.split('\n').length], [0, 3]);
        assert.match(measured.stderr, /they came with 0\.7\.0/);
        await filled('roomy', 2500);
        const made = await run('index', '--table', 'roomy', '--memory', '1MB', '--sample', '2');
        assert.deepEqual([made.status, /takes about .* MB while it is made, and may have 1MB: with --memory 64MB/.test(made.stderr)], [0, true], made.stderr);
        assert.deepEqual((await indexesOf(database, 'roomy')).map(({ kind, isValid }) => [kind, isValid]), [['vector', true]]);
      });
    }

    async function used(index: string): Promise<void> {
      // A connection tells its counts some time after it has counted.
      for (let tries = 0; (await postgres.query('SELECT FROM pg_stat_user_indexes WHERE indexrelname = $1 AND idx_scan > 0', [index])).length === 0; tries++) {
        assert.ok(tries < 300, `${index} was not used`);
        await delay(100);
      }
    }

    test('while it is made rows are written, a second process waits for it, and its share is told', async () => {
      await filled('busy', 300);
      // An old transaction holds the making up, as a long report of a shop would, once the table is open to both.
      const shop = new pg.Client({ connectionString: postgres.url });
      await shop.connect();
      await shop.query('BEGIN; SELECT FROM busy LIMIT 1; UPDATE busy SET location = location WHERE id = $$p1$$');
      const phases: string[] = [];
      const plan = hnsw('busy', DIMENSIONS, 'vector', settingsFor(0));
      const making = [1, 2].map(() => makeIndex(database, plan, (_, phase) => phases.push(phase), new AbortController().signal));
      while (phases.length < 4) await delay(20);
      await postgres.query("INSERT INTO busy SELECT 'new', location, sha256, embedding_id, embedding FROM busy WHERE id = 'p2'");
      await shop.query('COMMIT');
      await shop.end();
      await Promise.all(making);
      assert.ok(phases.includes('waiting for writers before build'), phases.join());
      assert.deepEqual(await isValid('busy'), [true]);
    });

    test('a making that is interrupted ends in the database too, and can be begun again', async () => {
      await filled('ended', 50);
      const shop = new pg.Client({ connectionString: postgres.url });
      await shop.connect();
      await shop.query('BEGIN; UPDATE ended SET location = location');
      const controller = new AbortController();
      const own = new Database({ url: postgres.url, patienceMs: 5000, signal: controller.signal });
      const making = make('ended', 'vector', {}, own, controller.signal);
      while ((await postgres.query('SELECT FROM pg_stat_progress_create_index')).length === 0) await delay(20);
      controller.abort(new Error('interrupted'));
      await assert.rejects(making, /interrupted/);
      assert.deepEqual(await postgres.query('SELECT FROM pg_stat_progress_create_index'), []);
      await shop.query('COMMIT');
      await shop.end();
      await own.close();
      await make('ended', 'vector');
      assert.deepEqual(await isValid('ended'), [true]);
    });

    test('an index whose command was killed is made by the database, and one whose making was killed is made anew by the same command', async () => {
      await filled('killed', 50);
      for (const killed of ['command', 'making'] as const) {
        const shop = new pg.Client({ connectionString: postgres.url });
        shop.on('error', () => undefined);
        await shop.connect();
        await shop.query('BEGIN; UPDATE killed SET location = location');
        const { child, outcome, stderr } = launch(['index', '--table', 'killed', '--sample', '2'], postgres.folder, { DATABASE_URL: postgres.url });
        while ((await isValid('killed')).length === 0) {
          assert.equal(child.exitCode, null, stderr());
          await delay(20);
        }
        const [making] = await postgres.query<{ pid: number }>("SELECT pid FROM pg_stat_progress_create_index WHERE relid = 'killed'::regclass");
        child.kill('SIGKILL');
        assert.equal((await outcome).signal, 'SIGKILL');
        // As a machine short of memory does; the database then ends all its processes, and starts again by itself.
        if (killed === 'making') process.kill(making?.pid ?? 0, 'SIGKILL');
        assert.deepEqual((await indexesOf(database, 'killed')).map((made) => made.isValid), [false]);
        const again = run('index', '--table', 'killed', '--sample', '2');
        if (killed === 'command') await shop.query('COMMIT');
        await shop.end().catch(() => undefined);
        const { status, stdout, stderr: said } = await again;
        assert.equal(status, 0, said);
        if (killed === 'making') assert.match(stdout, /killed_embedding_hnsw: .* made in /);
        assert.deepEqual(await isValid('killed'), [true]);
        await postgres.query('DROP INDEX killed_embedding_hnsw');
      }
    });

    test('more memory than the machine has for it is refused in words that say what to change', async () => {
      await filled('greedy', 50);
      await postgres.query('ALTER TABLE greedy SET (parallel_workers = 1)');
      await assert.rejects(make('greedy', 'vector', { memory: '2000GB' }), (error: unknown) => error instanceof RefusedError && /less --memory, or --workers 0/.test(error.message));
      assert.deepEqual(await indexesOf(database, 'greedy'), []);
      await make('greedy', 'vector', { memory: '32MB', workers: 1 });
      assert.equal((await indexesOf(database, 'greedy')).length, 1);
    });

    test('a partitioned table gets its index too', async () => {
      await postgres.query(`CREATE TABLE parts (id text PRIMARY KEY, location text NOT NULL, sha256 text NOT NULL, embedding_id text NOT NULL, embedding vector(${DIMENSIONS}) NOT NULL) PARTITION BY HASH (id);
        CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 1, REMAINDER 0)`);
      await make('parts', 'vector');
      assert.deepEqual((await indexesOf(database, 'parts')).map(({ name }) => name), ['parts_embedding_hnsw']);
    });
  });
}
