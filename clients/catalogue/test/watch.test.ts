/** A table that keeps up with a folder or with rows of another table, whatever falls over meanwhile. */
import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, readFileSync, renameSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { sha256 } from '../src/load.ts';
import { Changes, type Marked } from '../src/watch/changes.ts';
import { image } from '../../typescript/test/support/images.ts';
import type { Running } from './support/cli.ts';
import { Workshop } from './support/workshop.ts';

let shop: Workshop;
before(async () => void (shop = await Workshop.open()));
after(() => shop.close());

async function until(isSo: () => Promise<boolean> | boolean, job: Running, what: string): Promise<void> {
  for (let tries = 0; !(await isSo()); tries++) {
    assert.equal(job.child.exitCode, null, `${what}: the watch has ended: ${job.stderr()}`);
    assert.ok(tries < 3000, `${what}: not within a minute; ${job.stderr()}`);
    await delay(20);
  }
}

const ids = async (table: string): Promise<string[]> => (await shop.rows(table)).map(({ id }) => id);
/** By id, the sha256 that the table has. */
const digests = async (table: string): Promise<Record<string, string>> => Object.fromEntries((await shop.rows(table)).map(({ id, sha256 }) => [id, sha256]));
const hasRows = (table: string, count: number) => async (): Promise<boolean> =>
  (await shop.postgres.query<{ there: boolean }>('SELECT to_regclass($1) IS NOT NULL AS there', [table]))[0]?.there === true && (await shop.count(table)) === count;

async function interrupted(job: Running): Promise<void> {
  job.child.kill('SIGINT');
  assert.equal((await job.outcome).status, 130);
}

type Seen = readonly [id: string, mark: string, location?: string];

async function* of(...entries: readonly Seen[]): AsyncGenerator<Marked> {
  for (const [id, mark, location = id] of entries) yield { entry: { item: { id, location } }, mark, isFile: true };
}

test('a file is due when two looks find it the same, once, and again when it changes, or a while after it failed', async () => {
  const changes = new Changes();
  const due = async (now: number, ...entries: readonly Seen[]): Promise<string[]> =>
    (await changes.look(of(...entries), now)).due.map((entry) => ('item' in entry ? entry.item.id : entry.where));
  assert.deepEqual(await due(0, ['a', '1']), []);
  assert.deepEqual(await due(0, ['a', '2']), []);
  assert.deepEqual(await due(0, ['a', '2']), ['a']);
  assert.deepEqual(await due(0, ['a', '2']), []);
  changes.failed('a', 0);
  assert.deepEqual(await due(59_000, ['a', '2']), []);
  assert.deepEqual(await due(60_000, ['a', '2']), ['a']);
  changes.failed('a', 60_000);
  assert.deepEqual(await due(179_000, ['a', '2']), []);
  assert.deepEqual(await due(180_000, ['a', '2']), ['a']);
  assert.deepEqual([await due(180_000, ['a', '3']), await due(180_000, ['a', '3'])], [[], ['a']]);
  assert.deepEqual([await due(180_000, ['a', '3', 'moved']), await due(180_000, ['a', '3', 'moved'])], [[], ['a']]);
});

test('what is gone at one look only is not gone, and a second entry of an id is named once', async () => {
  const changes = new Changes();
  const gone = async (...entries: readonly Seen[]): Promise<unknown> => {
    const { gone: found, isSettled } = await changes.look(of(...entries), 0);
    return [found, isSettled];
  };
  await changes.look(of(['a', '1'], ['b', '1']), 0);
  assert.deepEqual(await gone(['a', '1'], ['b', '1']), [[], true]);
  assert.deepEqual(await gone(['a', '1']), [[], false]);
  assert.deepEqual(await gone(['a', '1'], ['b', '1']), [[], true]);
  assert.deepEqual([await gone(['a', '1']), await gone(['a', '1'])], [[[], false], [['b'], true]]);
  changes.forget(['b']);
  assert.deepEqual([await gone(['a', '1']), changes.size, changes.has('b')], [[[], true], 1, false]);
  const torn = (async function* (): AsyncGenerator<Marked> {
    yield* of(['c', '1']);
    throw new Error('torn');
  })();
  await assert.rejects(changes.look(torn, 0), /torn/);
  assert.deepEqual([changes.has('c'), changes.has('a')], [false, true]);
  const named = async (): Promise<unknown[]> => (await changes.look(of(['a', '1'], ['a', '1', 'second']), 0)).due.map((entry) => 'item' in entry && entry.item.location);
  assert.deepEqual([await named(), await named()], [['second'], []]);
});

test('a folder is kept up with: new, half written, changed, moved, broken and mended, deleted; through kills of watch, server and database', async (t) => {
  const folder = shop.images('kept', 6);
  const watching = (): Running => shop.launch('watch', folder, '--table', 'kept', '--create', '--prune', '--failures', 'kept.jsonl');
  let job = watching();
  await until(hasRows('kept', 6), job, 'all that is there');
  await until(() => job.stderr().includes('6 images are watched'), job, 'said so');
  writeFileSync(path.join(folder, 'new.png'), image(100));
  mkdirSync(path.join(folder, 'sub/deep'), { recursive: true });
  writeFileSync(path.join(folder, 'sub/deep/new.png'), image(101));
  const whole = image(102);
  writeFileSync(path.join(folder, 'slow.png'), whole.subarray(0, 500));
  const rest = delay(300).then(() => appendFileSync(path.join(folder, 'slow.png'), whole.subarray(500)));
  await rest;
  await until(hasRows('kept', 9), job, 'three new');
  // However late the second half came, it is the whole that stays.
  await until(async () => (await digests('kept'))['slow.png'] === sha256(whole), job, 'the whole of it');
  const before = await digests('kept');
  writeFileSync(path.join(folder, '00001.png'), image(103));
  renameSync(path.join(folder, '00002.png'), path.join(folder, 'moved.png'));
  writeFileSync(path.join(folder, 'broken.png'), 'no image');
  await until(async () => (await digests('kept'))['00001.png'] !== before['00001.png'], job, 'changed');
  await until(async () => (await ids('kept')).join() === '00000.png,00001.png,00003.png,00004.png,00005.png,moved.png,new.png,slow.png,sub/deep/new.png', job, 'moved');
  await until(() => job.stderr().includes('failed: broken.png: '), job, 'broken');
  assert.match(readFileSync(path.join(shop.folder, 'kept.jsonl'), 'utf8'), /"id":"broken\.png"/);
  writeFileSync(path.join(folder, 'broken.png'), image(104));
  await until(hasRows('kept', 10), job, 'mended');
  await shop.postgres.kill();
  writeFileSync(path.join(folder, 'without database.png'), image(105));
  await until(() => /waiting/.test(job.stderr()), job, 'waits for the database');
  await shop.postgres.up();
  await until(hasRows('kept', 11), job, 'after the database');
  await shop.server.kill();
  writeFileSync(path.join(folder, 'without server.png'), image(106));
  await delay(1000);
  await shop.server.up();
  await until(hasRows('kept', 12), job, 'after the server');
  job.child.kill('SIGKILL');
  await job.outcome;
  for (let i = 0; i < 5; i++) writeFileSync(path.join(folder, `while-away-${i}.png`), image(110 + i));
  unlinkSync(path.join(folder, 'new.png'));
  job = watching();
  await until(async () => (await ids('kept')).length === 16 && !(await ids('kept')).includes('new.png'), job, 'what happened meanwhile');
  t.diagnostic(job.stderr());
  await interrupted(job);
  // What the watch has made is what the job makes: it finds nothing to do.
  assert.match((await shop.run(folder, '--table', 'kept')).stdout, /: 0 embedded with .*, 16 already done, 0 failed/);
});

test('rows stay without --prune, and with it when more is gone at once than is left', async () => {
  const folder = shop.images('stays', 8, 200);
  const job = shop.launch('watch', folder, '--table', 'stays', '--create', '--prune', '--every', '1');
  await until(() => job.stderr().includes('8 images are watched'), job, 'watched');
  renameSync(folder, `${folder}-away`);
  await until(() => job.stderr().includes('not looked at: ENOENT'), job, 'the folder is away');
  mkdirSync(folder);
  writeFileSync(path.join(folder, '00000.png'), image(200));
  await until(() => /7 images are gone at once and 1 are left: no row is deleted/.test(job.stderr()), job, 'nearly empty');
  assert.equal(await shop.count('stays'), 8);
  await interrupted(job);
  const other = shop.launch('watch', folder, '--table', 'stays');
  await until(() => other.stderr().includes('1 images are watched'), other, 'watched again');
  writeFileSync(path.join(folder, 'a.png'), image(210));
  await until(hasRows('stays', 9), other, 'new');
  unlinkSync(path.join(folder, '00000.png'));
  await until(() => other.stderr().includes('1 images are gone; their rows stay'), other, 'gone');
  assert.equal(await shop.count('stays'), 9);
  await interrupted(other);
  rmSync(folder, { recursive: true });
});

test('a list is kept up with when it is replaced, and named once for what is wrong in it', async () => {
  const folder = shop.images('listed', 4, 400);
  const file = path.join(folder, 'list.jsonl');
  const replace = (...lines: string[]): void => {
    writeFileSync(`${file}.new`, lines.join('\n'));
    renameSync(`${file}.new`, file);
  };
  const line = (i: number): string => JSON.stringify({ id: `p${i}`, path: `0000${i}.png` });
  replace(line(0), line(1), '{"id": "p9"}');
  const job = shop.launch('watch', file, '--table', 'listed', '--create', '--every', '3600');
  await until(() => job.stderr().includes('2 images are watched'), job, 'watched');
  replace(line(0), line(1), '{"id": "p9"}', line(2), JSON.stringify({ id: 'p0', path: '00003.png' }));
  await until(hasRows('listed', 3), job, 'a line more');
  const before = await digests('listed');
  writeFileSync(path.join(folder, '00001.png'), image(410));
  await until(async () => (await digests('listed'))['p1'] !== before['p1'], job, 'the image of a line');
  await interrupted(job);
  assert.equal(job.stderr().match(/list\.jsonl:3: bad_entry/g)?.length, 1);
});

test('a table is kept up with by its trigger: rows that come, change, name another image and go', async (t) => {
  const served = new Map<string, Buffer>([1, 2, 3].map((i) => [`/${i}.png`, image(300 + i)]));
  const site: Server = createServer((request, response) => void response.end(served.get(request.url ?? ''))).listen(0, '127.0.0.1');
  await new Promise((resolve) => site.once('listening', resolve));
  t.after(() => site.close());
  const url = `http://127.0.0.1:${(site.address() as AddressInfo).port}`;
  await shop.postgres.query('CREATE TABLE products (sku text PRIMARY KEY, photo text, updated_at timestamptz DEFAULT now())');
  for (const i of [1, 2]) await shop.postgres.query('INSERT INTO products VALUES ($1, $2)', [`p${i}`, `${url}/${i}.png`]);
  const query = ['watch', '--query', 'SELECT sku, photo, updated_at FROM products', '--updated', 'updated_at', '--table', 'shown', '--create', '--prune', '--every', '3600'];
  const job = shop.launch(...query, '--trigger', 'products');
  await until(() => job.stderr().includes('2 images are watched'), job, 'watched');
  assert.match(job.stderr(), /products tells of its changes from now on: trigger clipsrv_watch/);
  await shop.postgres.query('INSERT INTO products VALUES ($1, $2)', ['p3', `${url}/3.png`]);
  await until(hasRows('shown', 3), job, 'inserted');
  const before = await digests('shown');
  // Another image under the URL it had.
  served.set('/1.png', image(310));
  await shop.postgres.query("UPDATE products SET updated_at = clock_timestamp() + interval '1 s' WHERE sku = 'p1'");
  await until(async () => (await digests('shown'))['p1'] !== before['p1'], job, 'updated');
  await shop.postgres.query("UPDATE products SET photo = $1 WHERE sku = 'p2'", [`${url}/3.png`]);
  await until(async () => (await digests('shown'))['p2'] === before['p3'], job, 'another image');
  // Both looks find it gone; the second comes without a change.
  await shop.postgres.query("DELETE FROM products WHERE sku = 'p3'");
  await until(hasRows('shown', 2), job, 'deleted');
  await interrupted(job);
  const absent = await shop.run(...query, '--trigger', 'absent');
  assert.deepEqual([absent.status, absent.stderr], [2, 'There is no table absent for --trigger.\n']);
  await shop.postgres.query('CREATE ROLE visitor LOGIN; GRANT SELECT ON products TO visitor; CREATE TABLE theirs (id int); GRANT CREATE ON SCHEMA public TO visitor');
  const visitor = await shop.run(...query, '--trigger', 'theirs', '--query-database', shop.postgres.url.replace('postgres@', 'visitor@'));
  assert.equal(visitor.status, 2);
  assert.match(visitor.stderr, /^The trigger on theirs was not made: .*(permission denied|must be owner).* NOTIFY clipsrv_watch when it changes, and leave --trigger out\.$/m);
});
