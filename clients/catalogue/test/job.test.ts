/** The command against the real server and a real PostgreSQL. */
import assert from 'node:assert/strict';
import { exec } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { ClipClient } from 'clipsrv-client';
import { image } from '../../typescript/test/support/images.ts';
import { REPOSITORY } from '../../typescript/test/support/server.ts';
import { Workshop, type Row } from './support/workshop.ts';

let shop: Workshop;
before(async () => void (shop = await Workshop.open()));
after(() => shop.close());

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
const vectorOf = (row: Row | undefined): number[] => JSON.parse(row?.embedding ?? '[]') as number[];
const distance = (a: readonly number[], b: readonly number[]): number => Math.max(...a.map((value, i) => Math.abs(value - (b[i] ?? NaN))));
const failures = (): { id: string; code: string }[] =>
  readFileSync(path.join(shop.folder, 'catalog-failures.jsonl'), 'utf8').trim().split('\n').map((line) => JSON.parse(line) as { id: string; code: string });

test('a folder goes into the table: each image with its own vector, sha256 and the model\'s id', async () => {
  const folder = shop.images('folder', 100);
  const { status, stdout, stderr } = await shop.run(folder, '--table', 'folder', '--create', '--index');
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^100 in the catalogue: 100 embedded with .*, 0 already done, 0 failed$/m);
  const rows = await shop.rows('folder');
  const client = new ClipClient({ baseUrl: shop.server.url });
  const { current, details } = await client.models();
  const expected = await client.embedImages(Array.from({ length: 100 }, (_, i) => image(i)));
  assert.equal(rows.length, 100);
  for (const [i, row] of rows.entries()) {
    assert.equal(row.id, `${String(i).padStart(5, '0')}.png`);
    assert.equal(row.sha256, sha256(image(i)));
    assert.equal(row.embedding_id, details[current]?.embedding_id);
    assert.ok(distance(vectorOf(row), [...(expected[i] ?? [])]) < 1e-5, row.id);
  }
  const [index] = await shop.postgres.query<{ indexdef: string }>("SELECT indexdef FROM pg_indexes WHERE indexname = 'folder_embedding_hnsw'");
  assert.match(index?.indexdef ?? '', /USING hnsw \(embedding vector_cosine_ops\)/);
});

test('a second run does nothing, and a third only what changed', async () => {
  const folder = shop.images('again', 40, 1000);
  assert.equal((await shop.run(folder, '--table', 'again', '--create')).status, 0);
  assert.match((await shop.run(folder, '--table', 'again')).stdout, /0 embedded with .*, 40 already done/);
  writeFileSync(path.join(folder, '00007.png'), image(5000));
  writeFileSync(path.join(folder, 'new.png'), image(5001));
  assert.match((await shop.run(folder, '--table', 'again')).stdout, /^41 in the catalogue: 2 embedded with .*, 39 already done/m);
  const rows = await shop.rows('again');
  assert.equal(rows.length, 41);
  assert.equal(rows[7]?.sha256, sha256(image(5000)));
});

test('what cannot be embedded is listed, at the end and in a file, and the status says so', async () => {
  const folder = shop.images('bad', 40, 2000);
  writeFileSync(path.join(folder, '00003.png'), 'not an image');
  writeFileSync(path.join(folder, '00020.png'), '');
  const catalogue = path.join(folder, 'catalogue.csv');
  const names = Array.from({ length: 40 }, (_, i) => `${i},${String(i).padStart(5, '0')}.png`);
  writeFileSync(catalogue, ['id,path', ...names, '40,lost.png', '7,00008.png', '41,'].join('\n'));
  const { status, stdout, stderr } = await shop.run(catalogue, '--table', 'bad', '--create');
  assert.equal(status, 1);
  assert.match(stdout, /^43 in the catalogue: 38 embedded with .*, 0 already done, 5 failed$/m);
  const found = failures().map(({ id, code }) => `${id} ${code}`).sort();
  assert.deepEqual(found, [' bad_entry', '20 empty_image', '3 not_an_image', '40 file_missing', '7 duplicate_id']);
  for (const { id, code } of failures()) assert.match(stderr, new RegExp(`^failed: ${id || '.*'}: ${code}: .+$`, 'm'));
  writeFileSync(path.join(folder, '00003.png'), image(1));
  const second = await shop.run(catalogue, '--table', 'bad');
  assert.match(second.stdout, /1 embedded with .*, 38 already done, 4 failed/);
});

test('a dry run says what would be done and writes nothing', async () => {
  const folder = shop.images('dry', 10, 3000);
  const first = await shop.run(folder, '--table', 'dry', '--dry-run', '--failures', 'dry.jsonl');
  assert.match(first.stdout, /^10 in the catalogue: 10 would be embedded, 0 already done, 0 failed$/m);
  assert.equal(first.status, 0);
  assert.deepEqual(await shop.postgres.query("SELECT to_regclass('dry') AS t"), [{ t: null }]);
  await shop.run(folder, '--table', 'dry', '--create');
  writeFileSync(path.join(folder, '00001.png'), image(77));
  writeFileSync(path.join(folder, 'catalogue.jsonl'), '{"id": "00002.png", "path": "00002.png"}\n{"id": "x", "path": "none.png"}\n');
  assert.match((await shop.run(folder, '--table', 'dry', '--dry-run')).stdout, /1 would be embedded, 9 already done/);
  const third = await shop.run(path.join(folder, 'catalogue.jsonl'), '--table', 'dry', '--dry-run', '--failures', 'dry.jsonl');
  assert.match(third.stdout, /0 would be embedded, 1 already done, 1 failed/);
  assert.equal(third.status, 1);
  assert.equal(existsSync(path.join(shop.folder, 'dry.jsonl')), false);
  assert.equal(await shop.count('dry'), 10);
});

test('vectors of another model are not mixed in, but replaced when told so', async () => {
  const folder = shop.images('mix', 30, 4000);
  await shop.run(folder, '--table', 'mix', '--create');
  const before = await shop.rows('mix');
  await shop.postgres.query("UPDATE mix SET embedding_id = 'another', embedding = embedding - embedding - embedding WHERE id < '00010'");
  const refused = await shop.run(folder, '--table', 'mix');
  assert.equal(refused.status, 2);
  assert.match(refused.stderr, /mix holds 10 vectors of another model \(embedding_id another; .*--reembed/);
  const replaced = await shop.run(folder, '--table', 'mix', '--reembed');
  assert.match(replaced.stdout, /10 embedded with .*, 20 already done/);
  const rows = await shop.rows('mix');
  assert.deepEqual(rows.map(({ embedding: _, ...row }) => row), before.map(({ embedding: _, ...row }) => row));
  for (const [i, row] of rows.entries()) assert.ok(distance(vectorOf(row), vectorOf(before[i])) < 1e-5);
});

test('a table that does not fit is refused with the cure', async () => {
  const folder = shop.images('refused', 2, 1);
  await shop.postgres.query('CREATE TABLE other (id text, name text)');
  await shop.postgres.query('CREATE EXTENSION IF NOT EXISTS vector');
  await shop.postgres.query('CREATE TABLE narrow (id text PRIMARY KEY, location text, sha256 text, embedding_id text, embedding vector(3))');
  const cases: [string, RegExp][] = [
    ['missing', /no table missing: add --create/],
    ['other', /other has no column location, sha256, embedding_id, embedding/],
    ['narrow', /vectors of 3 dimensions, .* --table and --create/],
  ];
  for (const [table, message] of cases) {
    const { status, stderr } = await shop.run(folder, '--table', table);
    assert.equal(status, 2);
    assert.match(stderr, message);
    assert.equal(stderr.trim().split('\n').length, 1, stderr);
  }
});

test('a query is a catalogue too, and its mistakes are the database\'s own words', async () => {
  const folder = shop.images('query', 25, 6000);
  await shop.postgres.query(`CREATE TABLE goods AS SELECT i AS number, lpad(i::text, 5, '0') || '.png' AS photo FROM generate_series(0, 24) AS i`);
  const done = await shop.run('--query', 'SELECT number, photo FROM goods WHERE number < 20', '--base', folder, '--table', 'query', '--create');
  assert.equal(done.status, 0, done.stderr);
  assert.deepEqual((await shop.rows('query')).map(({ id }) => Number(id)).sort((a, b) => a - b), Array.from({ length: 20 }, (_, i) => i));
  const wrong = await shop.run('--query', 'SELECT nothing FROM goods', '--table', 'query');
  assert.equal(wrong.status, 2);
  assert.match(wrong.stderr, /column "nothing" does not exist/);
});

test('images behind URLs are downloaded once, again only when told, and failures keep their reason', async (t) => {
  let requests = 0;
  let stumbled = false;
  const web = createServer((request, response) => {
    requests++;
    const number = Number(/\d+/.exec(request.url ?? '')?.[0]);
    if (number === 3) response.writeHead(404).end();
    else if (number === 4 && !stumbled) (stumbled = true), response.writeHead(503).end();
    else response.end(image(7000 + number));
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => web.once('listening', resolve));
  t.after(() => web.close());
  const { port } = web.address() as AddressInfo;
  const catalogue = path.join(shop.folder, 'urls.jsonl');
  writeFileSync(catalogue, Array.from({ length: 10 }, (_, i) => JSON.stringify({ id: i, url: `http://127.0.0.1:${port}/${i}.png` })).join('\n'));
  const first = await shop.run(catalogue, '--table', 'urls', '--create');
  assert.match(first.stdout, /9 embedded with .*, 1 failed/);
  assert.deepEqual(failures().map(({ id, code }) => [id, code]), [['3', 'download_refused']]);
  assert.equal(requests, 11);
  assert.equal((await shop.rows('urls'))[0]?.sha256, sha256(image(7000)));
  requests = 0;
  assert.match((await shop.run(catalogue, '--table', 'urls')).stdout, /0 embedded with .*, 9 already done, 1 failed/);
  assert.equal(requests, 1);
  assert.match((await shop.run(catalogue, '--table', 'urls', '--recheck')).stdout, /0 embedded with .*, 9 already done, 1 failed/);
  assert.equal(requests, 11);
});

test('search finds the image itself first, by image, and answers a text', async () => {
  const folder = shop.images('search', 150, 8000);
  await shop.run(folder, '--table', 'search', '--create', '--index');
  const found = await shop.run('search', '--image', path.join(folder, '00042.png'), '--table', 'search', '--limit', '3');
  assert.match(found.stdout, /^ {2}1 {2}1\.0000 {2}00042\.png\n {2}2 {2}0\.\d{4}|^ {2}1 {2}1\.0000 {2}00042\.png\n {2}2 {2}1\.0000/);
  const all = await shop.run('search', '--text', 'a red shoe', '--table', 'search', '--limit', '120', '--json');
  const hits = all.stdout.trim().split('\n').map((line) => JSON.parse(line) as { id: string; similarity: number });
  assert.equal(hits.length, 120);
  assert.deepEqual(hits, [...hits].sort((a, b) => b.similarity - a.similarity));
  assert.equal(new Set(hits.map(({ id }) => id)).size, 120);
});

test('an address that is no clipsrv server is refused at once', async () => {
  const folder = shop.images('nobody', 1);
  const { status, stderr } = await shop.run(folder, '--server', `${shop.server.url}/nowhere`, '--table', 'nobody');
  assert.equal(status, 2, stderr);
});

test('every command of docs/catalogue.md runs as printed', async () => {
  const own = await Workshop.open('newest');
  try {
    for (const name of ['clients', 'examples', 'node_modules', 'package.json', 'scripts', 'tsconfig.json']) {
      symlinkSync(path.join(REPOSITORY, name), path.join(own.folder, name));
    }
    own.images('photos', 12, 10_000);
    const page = readFileSync(path.join(REPOSITORY, 'docs/catalogue.md'), 'utf8');
    const commands = [...page.matchAll(/^```bash\n(.*?)^```/gms)].flatMap(([, block]) => (block ?? '').trim().split('\n'));
    const env = { ...process.env, DATABASE_URL: own.postgres.url, CLIP_SERVER_URL: own.server.url };
    // By what a command says; the first that fits it.
    const says: readonly (readonly [RegExp, RegExp])[] = [
      [/search .*(red dress|photos)/, /\d{5}\.png/], [/search .*赤いハート/, /1 .*red-heart\.png .*name_ja is/], [/search .*fl-0039/, /1 .*flag-italy\.png .*code is/],
      [/search .*heart --not red/, /blue-heart\.png/], [/index .*--columns/, /examples_search searches by vectors, and words in code, name, name_ja of drawings/], [/index --measure/, /halfvec +an index of/],
      [/index --type halfvec/, /image_embeddings_embedding_hnsw_halfvec/], [/duplicates/, /(?:)/], [/embed examples/, /^16 in the catalogue: /m], [/photos/, /^12 in the catalogue: /m],
    ];
    const met = new Set<RegExp>();
    for (const command of commands) {
      const file = /^psql .*-f (\S+)$/.exec(command)?.[1];
      if (file !== undefined) {
        // The program is not everywhere where the tests run.
        await own.postgres.query(readFileSync(path.join(REPOSITORY, file), 'utf8'));
        continue;
      }
      const [kind, wanted] = says.find(([of]) => of.test(command)) ?? [];
      assert.ok(kind !== undefined && wanted !== undefined, `nothing is known of ${command}`);
      const { stdout, stderr } = await promisify(exec)(command, { cwd: own.folder, env });
      assert.match(stdout + stderr, wanted, command);
      met.add(kind);
    }
    assert.equal(met.size, says.length);
    assert.deepEqual([await own.count('image_embeddings'), await own.count('examples')], [12, 16]);
  } finally {
    await own.close();
  }
});
