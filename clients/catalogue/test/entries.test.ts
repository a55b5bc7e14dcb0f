/** Entries that cannot be stored, or not as they stand: each is named, all others are done, and a second run is no different. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { PYTHON, REPOSITORY } from '../../typescript/test/support/server.ts';
import { launch } from './support/cli.ts';
import { Workshop } from './support/workshop.ts';

const MODEL = process.env['CLIPSRV_TEST_MODEL'] ?? 'demo';
const MODELS = process.env['CLIPSRV_MODELS_DIR'] ?? path.join(REPOSITORY, 'onnx_models');

let shop: Workshop;
let folder: string;
before(async () => {
  shop = await Workshop.open();
  folder = shop.images('photos', 30);
});
after(() => shop.close());

interface Failure {
  readonly id: string;
  readonly location: string;
  readonly code: string;
  readonly message: string;
}

const failures = (): Failure[] =>
  readFileSync(path.join(shop.folder, 'catalog-failures.jsonl'), 'utf8').trim().split('\n').map((line) => JSON.parse(line) as Failure);

const photo = (i: number): string => `${String(i).padStart(5, '0')}.png`;
const ids = async (table: string): Promise<string[]> => (await shop.rows(table)).map(({ id }) => id);

/** A file of JSON lines beside the images. */
function catalogue(name: string, entries: readonly { readonly id: string; readonly path: string }[]): string {
  const file = path.join(folder, name);
  writeFileSync(file, entries.map((entry) => `${JSON.stringify(entry)}\n`).join(''));
  return file;
}

const incompressible = (length: number): string => {
  let [text, state] = ['', 1];
  while (text.length < length) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    text += state.toString(36);
  }
  return text.slice(0, length);
};

test('of entries with one id the first is stored, at any distance and across every border, and a second run does nothing', async (t) => {
  const entries = Array.from({ length: 300 }, (_, i) => ({ id: `p${i}`, path: photo(i % 20) }));
  const far = [{ id: 'p3', path: photo(25) }, { id: 'p3', path: photo(3) }, { id: 'p299', path: photo(26) }];
  const joined = entries.flatMap(({ id, path: first }, i) => [{ id, path: first }, { id, path: photo((i + 7) % 20) }]);
  entries[4] = { id: 'p4', path: 'missing.png' }; // one that fails moves the borders of batches
  for (const [name, list, twice, same] of [['far', [...entries, ...far], 2, 1], ['joined', joined, 300, 0]] as const) {
    const file = catalogue(`${name}.jsonl`, list);
    const run = (): ReturnType<Workshop['run']> => shop.run(file, '--table', name, '--create', '--batch', '7');
    const first = await run();
    assert.equal(first.status, 1, first.stderr);
    const rows = await shop.rows(name);
    const second = await run();
    t.diagnostic(first.stdout.trim());
    assert.equal(failures().filter(({ code }) => code === 'duplicate_id').length, twice);
    assert.equal(/(\d+) named twice/.exec(first.stdout)?.[1] ?? '0', String(same));
    assert.deepEqual(await shop.rows(name), rows);
    assert.match(second.stdout, /: 0 embedded/);
    const expected = new Map(list.toReversed().filter(({ path }) => path !== 'missing.png').map(({ id, path }) => [id, path]));
    assert.deepEqual(new Map(rows.map(({ id, location }) => [id, location])), expected);
  }
});

test('ids that PostgreSQL cannot hold are listed, and those beside them are stored', async () => {
  const good = ['1', 's\ufffd', 'é'.repeat(1000), 'a'.repeat(4000), "'; --", '{a,b}', ' x'];
  const bad = ['n\0l', 's\ud800', 's\ud801', incompressible(4000)];
  const file = catalogue('names.jsonl', [...good, ...bad].map((id, i) => ({ id, path: photo(i) })).toSorted((a, b) => a.path.localeCompare(b.path)));
  for (let run = 0; run < 2; run++) {
    const { status, stderr } = await shop.run(file, '--table', 'names', '--create');
    assert.equal(status, 1, stderr);
    assert.deepEqual((await ids('names')).sort(), good.toSorted());
    assert.deepEqual(failures().map(({ id, code }) => [id, code]).sort(), bad.map((id) => [id, 'bad_entry']).sort());
    assert.equal(stderr.includes('\0'), false);
  }
});

test('a database in another encoding holds what it can', async () => {
  await shop.postgres.query("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
  const file = catalogue('latin.jsonl', ['ok', 'é', '赤', '青', 'z'].map((id, i) => ({ id, path: photo(i) })));
  const database = shop.postgres.url.replace(/postgres$/, 'latin');
  for (const done of ['3 embedded', '0 embedded with .*, 3 already done']) {
    const { status, stdout, stderr } = await shop.run(file, '--table', 't', '--create', '--database', database);
    assert.equal(status, 1, stderr);
    assert.match(stdout, new RegExp(done));
    assert.deepEqual(failures().map(({ id, code }) => [id, code]), [['赤', 'bad_entry'], ['青', 'bad_entry']]);
  }
});

test('rows against a rule of the table are listed, and a table that takes none ends the job', async () => {
  const file = catalogue('rules.jsonl', ['a', 'b', 'c'].map((id, i) => ({ id, path: photo(i) })));
  await shop.run(file, '--table', 'rules', '--create', '--dry-run');
  await shop.run(file, '--table', 'rules', '--create');
  await shop.postgres.query("DELETE FROM rules; ALTER TABLE rules ADD CHECK (id <> 'b')");
  assert.equal((await shop.run(file, '--table', 'rules')).status, 1);
  assert.deepEqual(await ids('rules'), ['a', 'c']);
  assert.deepEqual(failures().map(({ id, code }) => [id, code]), [['b', 'refused_row']]);
  await shop.postgres.query('DELETE FROM rules; ALTER TABLE rules ADD price int NOT NULL');
  const { status, stderr } = await shop.run(file, '--table', 'rules');
  assert.equal(status, 2);
  assert.match(stderr, /No row fits the table rules/);
});

test('what is not a regular file is named and never waited for', async () => {
  const odd = shop.images('odd', 2, 500);
  execFileSync('mkfifo', [path.join(odd, 'pipe.jpg')]);
  symlinkSync('/dev/zero', path.join(odd, 'endless.jpg'));
  const listener = createServer().listen(path.join(odd, 'socket.jpg'));
  const { status, stdout, stderr } = await shop.run(odd, '--table', 'odd', '--create');
  listener.close();
  assert.equal(status, 1, stderr);
  assert.match(stdout, /^5 in the catalogue: 2 embedded with .*, 3 failed$/m);
  assert.deepEqual(failures().map(({ code }) => code), ['file_unreadable', 'file_unreadable', 'file_unreadable']);
  assert.match(failures().map(({ message }) => message).join('; '), /endless.jpg: it is not a regular file.*pipe.jpg: it is not a regular file/);
  const search = await shop.run('search', '--image', path.join(odd, 'pipe.jpg'), '--table', 'odd');
  assert.equal(search.status, 2);
  unlinkSync(path.join(odd, 'pipe.jpg'));
});

test('a file that says it is empty and has no end is read to the limit and no further', async () => {
  const list = catalogue('endless.jsonl', [{ id: '1', path: photo(1) }, { id: '2', path: '/proc/self/pagemap' }]);
  const { stdout } = await shop.run(list, '--table', 'endless', '--create');
  assert.match(stdout, /1 embedded with .*, 1 failed/);
  assert.deepEqual(failures().map(({ code }) => code), ['file_too_large']);
});

test('images are taken by the suffixes that the bulk job takes', async () => {
  const named = shop.images('named', 1, 900);
  for (const suffix of ['jfif', 'jpe', 'dib', 'mpo', 'hif', 'JFIF']) writeFileSync(path.join(named, `x.${suffix}`), readFileSync(path.join(named, photo(0))));
  const { stdout } = await shop.run(named, '--table', 'named', '--create');
  assert.match(stdout, /^7 in the catalogue: 7 embedded/m);
});

test('a catalogue of which nothing can be used is refused once, before the table is made', async () => {
  const file = path.join(folder, 'wrong.jsonl');
  writeFileSync(file, '{"sku": 1, "photo": "a.png"}\n'.repeat(1000));
  const { status, stderr } = await shop.run(file, '--table', 'wrong', '--create');
  assert.equal(status, 2);
  assert.match(stderr, /^None of the 1000 entries can be used\. .*wrong.jsonl:1: no id; its keys are: sku, photo\n$/);
  assert.deepEqual(await shop.postgres.query("SELECT to_regclass('wrong') AS t"), [{ t: null }]);
});

test('--encoding is checked before anything is done', async () => {
  const { status, stderr } = await shop.run(folder, '--table', 'encoding', '--create', '--encoding', 'utf-9');
  assert.equal(status, 2);
  assert.match(stderr, /--encoding utf-9 is none that is known/);
});

test('a job whose output nobody reads does its work', async () => {
  const job = launch([folder, '--table', 'unread', '--create', '--server', shop.server.url, '--database', shop.postgres.url], shop.folder);
  job.child.stdout?.destroy();
  job.child.stderr?.destroy();
  const { status } = await job.outcome;
  assert.equal(status, 0);
  assert.equal(await shop.count('unread'), 30);
});

test('the bulk job makes the same table, and each job takes the other\'s rows for what they are', async () => {
  const embed = (table: string): string =>
    execFileSync(PYTHON, ['-m', 'clipsrv', 'embed', '*.png', '--device', 'cpu', '--model', MODEL, '--table', table, '--out', shop.postgres.url, '--errors', path.join(shop.folder, 'e')], {
      cwd: folder, encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, PYTHONPATH: REPOSITORY, CLIPSRV_MODELS_DIR: MODELS },
    });
  const shape = (table: string): Promise<unknown[]> =>
    shop.postgres.query("SELECT attname, attnotnull, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 ORDER BY attnum", [table]);
  embed('by_bulk');
  assert.match((await shop.run(folder, '--table', 'by_bulk')).stdout, /: 0 embedded with .*, 30 already done, 0 failed/);
  assert.equal((await shop.run(folder, '--table', 'by_catalogue', '--create')).status, 0);
  embed('by_catalogue');
  assert.deepEqual(await shape('by_bulk'), await shape('by_catalogue'));
  assert.equal((await shape('by_bulk')).length, 5);
  assert.deepEqual((await shop.rows('by_bulk')).map(({ embedding: _, ...row }) => row), (await shop.rows('by_catalogue')).map(({ embedding: _, ...row }) => row));
});
