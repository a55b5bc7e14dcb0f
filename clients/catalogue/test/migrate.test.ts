/** A catalogue moves to another model, with a shop that reads and writes all the while and a job that is killed. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { ClipClient } from 'clipsrv-client';
import { migrateCommand } from '../src/commands/migrate.ts';
import { parseOptions } from '../src/options.ts';
import type { MigrateOptions } from '../src/options/migrate.ts';
import { image } from '../../typescript/test/support/images.ts';
import type { ClipServer } from '../../typescript/test/support/server.ts';
import { serverOfBoth } from './support/models.ts';
import { Shop } from './support/shop.ts';
import { Workshop } from './support/workshop.ts';

let shop: Workshop;
let models: string;
/** Of the model `other`, and of the first one too. */
let both: ClipServer;
/** By embedding_id, of the first model and of the other. */
let clients: Map<string, ClipClient>;
let ids: [string, string];

before(async () => {
  models = mkdtempSync(path.join(tmpdir(), 'clipsrv-models-'));
  [shop, both] = await Promise.all([Workshop.open(), serverOfBoth(models)]);
  const each = [shop.server, both].map(({ url }) => new ClipClient({ baseUrl: url }));
  ids = (await Promise.all(each.map(async (client) => String((await client.health())['embedding_id'])))) as [string, string];
  clients = new Map(each.map((client, i) => [ids[i] ?? '', client]));
  assert.equal(clients.size, 2);
});
after(async () => {
  await Promise.all([shop.close(), both.stop()]);
  rmSync(models, { recursive: true });
});

const to = (table: string, base: string, ...more: string[]): string[] =>
  ['migrate', '--to', 'other', '--server', both.url, '--table', table, '--base', base, ...more];
async function until(isSo: () => Promise<boolean>): Promise<void> {
  while (!(await isSo())) await delay(20);
}
const step = (table: string, ...more: string[]): string[] => ['migrate', '--table', table, '--server', both.url, ...more];
/** What it refuses, without a process of its own. */
const refused = (args: string[], message: RegExp): Promise<void> => {
  const options = parseOptions([...args, '--failures', path.join(shop.folder, 'refused.jsonl')], { DATABASE_URL: shop.postgres.url, CLIP_SERVER_URL: shop.server.url });
  assert.equal(options.command, 'migrate');
  return assert.rejects(migrateCommand(options as MigrateOptions, new AbortController().signal), { name: 'RefusedError', message });
};

async function embedded(table: string, count: number, seed: number): Promise<string> {
  const folder = shop.images(table, count, seed);
  const { status, stderr } = await shop.run(folder, '--table', table, '--create', '--index');
  assert.equal(status, 0, stderr);
  return folder;
}

test('killed five times, with queries and writes all the while, through switch, rollback and drop: none fails, none mixes', async (t) => {
  const images = 150;
  const folder = await embedded('busy', images, 0);
  const busy = new Shop({ url: shop.postgres.url, table: 'busy', folder, images, clients });
  for (let kill = 1; kill <= 5; kill++) {
    const job = shop.launch(...to('busy', folder, '--batch', '4', '--concurrency', '2'));
    await Promise.race([shop.stored('busy_other', (kill - 1) * 15), job.outcome]);
    await delay(Math.random() * 50);
    job.child.kill('SIGKILL');
    assert.equal((await job.outcome).signal, 'SIGKILL', 'the job ended before it could be killed');
    t.diagnostic(`kill ${kill} at ${await shop.count('busy_other')} rows`);
  }
  // Rows that the shop writes in the last moment may be missing: then the same command goes on.
  const filled = await shop.run(...to('busy', folder));
  assert.ok(filled.status === 0 || filled.status === 1, filled.stderr);
  for (const [turn, shown] of [['--switch', 'other'], ['--rollback', '(?!other)']] as const) {
    const { status, stdout, stderr } = await shop.run(...step('busy', turn, '--base', folder));
    assert.equal(status, 0, stderr);
    assert.match(stdout, new RegExp(`^busy_current shows ${shown}`));
    await delay(100);
  }
  const following = shop.launch(...step('busy', '--switch', '--follow', '--base', folder));
  await delay(200);
  await busy.close();
  const { tally } = busy;
  t.diagnostic(`${tally.queries} queries, ${tally.writes} writes, ${tally.askedAgain} asked again, ${tally.failed.length} failed, ${tally.mixed.length} mixed`);
  assert.deepEqual([tally.failed, tally.mixed], [[], []]);
  assert.ok(tally.queries > 30 && tally.writes > 30);
  // Nothing was lost on the way, and each table has the vectors of its own model.
  await until(async () => (await shop.count('busy_changes')) === 0);
  following.child.kill('SIGINT');
  const followed = await following.outcome;
  assert.equal(followed.status, 130);
  assert.match(followed.stdout, /^busy_current shows other/);
  const [old, young] = await Promise.all([shop.rows('busy'), shop.rows('busy_other')]);
  assert.deepEqual(young.map(({ id, location, sha256 }) => [id, location, sha256]), old.map(({ id, location, sha256 }) => [id, location, sha256]));
  for (const row of [...old, ...young]) await busy.check(row);
  assert.deepEqual(tally.mixed, []);
  assert.deepEqual([...new Set(old.map((row) => row.embedding_id)), ...new Set(young.map((row) => row.embedding_id))], ids);
  const named = String((await shop.postgres.query("SELECT model FROM busy_models WHERE NOT is_current"))[0]?.['model']);
  const dropped = await shop.run(...step('busy', '--drop', named));
  assert.equal(dropped.status, 0, dropped.stderr);
  assert.deepEqual(await shop.rows('busy'), young);
  const found = await shop.run('search', '--image', path.join(folder, young[0]?.id ?? ''), '--table', 'busy', '--server', both.url, '--limit', '1');
  assert.match(found.stdout, /1\.0000/);
});

test('before the switch coverage, neighbours and the recall of people\'s own queries are told for both models', async () => {
  const folder = await embedded('told', 40, 1000);
  const judgements = path.join(shop.folder, 'judgements.csv');
  writeFileSync(judgements, 'query,id\na red shoe,00001.png\na red shoe,00002.png\n赤い靴,nowhere.png\n');
  const { status, stdout, stderr } = await shop.run(...to('told', folder, '--judgements', judgements, '--sample', '7'));
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^40 rows embedded with other into told_other, 0 failed$/m);
  assert.match(stdout, /^other: 40 rows of \d+ in told_other, [\d.]+ MB, 0 rows missing$/m);
  assert.match(stdout, /^of the 10 nearest neighbours of an image 10\.0 are the same with both \(7 images\)$/m);
  assert.equal(stdout.match(/^\S+: first hit right \d+\.\d %, recall@10 \d+\.\d % \(2 queries\)$/gm)?.length, 2);
  assert.match(stdout, /told_current shows .* until: migrate --switch\n$/);
  writeFileSync(judgements, 'query,id\n,00001.png\n');
  await refused(to('told', folder, '--judgements', judgements), /judgements\.csv, record 1: a line of judgements/);
});

test('rows without a vector of the other model hold the switch up, unless told otherwise', async () => {
  const folder = await embedded('holes', 20, 2000);
  unlinkSync(path.join(folder, '00003.png'));
  writeFileSync(path.join(folder, '00004.png'), image(2999));
  const filled = await shop.run('migrate', '--to', 'other', '--to-server', both.url, '--table', 'holes', '--base', folder);
  assert.equal(filled.status, 1);
  assert.match(filled.stdout, /2 rows have no vector of other yet/);
  const codes = readFileSync(path.join(shop.folder, 'catalog-failures.jsonl'), 'utf8').trim().split('\n').map((line) => (JSON.parse(line) as { code: string }).code);
  assert.deepEqual(codes.sort(), ['file_missing', 'image_changed']);
  await refused(step('holes', '--switch', '--base', folder), /2 rows of holes have no vector of other: .*--allow-missing/);
  assert.match((await shop.run(...step('holes', '--switch', '--base', folder, '--allow-missing'))).stdout, /holes_current shows other, without 2 rows/);
  assert.equal((await shop.postgres.query('SELECT FROM holes_current')).length, 18);
});

test('embed and search go with what is shown, and carry over what they write', async () => {
  const folder = await embedded('along', 20, 3000);
  assert.equal((await shop.run(...to('along', folder))).status, 0);
  writeFileSync(path.join(folder, 'before.png'), image(3500));
  const added = await shop.run(folder, '--table', 'along');
  assert.match(added.stdout, /1 embedded with/);
  assert.match(added.stderr, /1 rows wait for vectors of other/);
  assert.deepEqual([await shop.count('along'), await shop.count('along_other')], [21, 20]);
  assert.equal((await shop.run(...step('along', '--switch', '--base', folder))).status, 0);
  assert.deepEqual(await shop.postgres.query("SELECT embedding_id FROM along_current WHERE id = 'before.png'"), [{ embedding_id: ids[1] }]);
  writeFileSync(path.join(folder, 'after.png'), image(3501));
  const elsewhere = await shop.run(folder, '--table', 'along');
  assert.equal(elsewhere.status, 2);
  assert.match(elsewhere.stderr, /along shows vectors of other .* does not have/);
  assert.match((await shop.run(folder, '--table', 'along', '--server', both.url)).stdout, /1 embedded with other, 21 already done/);
  assert.deepEqual([await shop.count('along'), await shop.count('along_other')], [22, 22]);
  const found = await shop.run('search', '--image', path.join(folder, 'after.png'), '--table', 'along', '--server', both.url, '--limit', '1');
  assert.match(found.stdout, /^ {2}1 {2}1\.0000 {2}after\.png$/m);
});

test('a table whose vectors another program has replaced is searched as it is, whatever was noted of it', async () => {
  const folder = await embedded('replaced', 2, 3600);
  await shop.postgres.query("UPDATE replaced_models SET embedding_id = 'of a model before'");
  const found = await shop.run('search', '--image', path.join(folder, '00001.png'), '--table', 'replaced', '--limit', '1');
  assert.match(found.stdout, /00001\.png$/m);
  assert.match((await shop.run(folder, '--table', 'replaced')).stdout, /2 already done/);
  assert.deepEqual(await shop.postgres.query('SELECT embedding_id FROM replaced_models'), [{ embedding_id: ids[0] }]);
  assert.equal((await shop.postgres.query('SELECT FROM replaced_current')).length, 2);
});

test('what cannot be meant is refused in a sentence, and nothing is made', async () => {
  const folder = await embedded('refused', 2, 4000);
  await shop.postgres.query("CREATE TABLE mixed AS TABLE refused; UPDATE mixed SET embedding_id = 'x' WHERE id = '00001.png'; CREATE TABLE bare (LIKE mixed)");
  const { status, stderr } = await shop.run(...step('refused', '--switch'));
  assert.equal(status, 2);
  assert.match(stderr, /^refused is not moving to another model: begin with --to MODEL\.$/m);
  await refused(step('refused', '--status'), /refused is not moving/);
  await refused(['migrate', '--table', 'refused', '--to', 'nothing'], /serves no model nothing; it serves: /);
  await refused(['migrate', '--table', 'refused', '--to', 'vit-b-32'], /serves no model vit-b-32/);
  await refused(to('absent', folder), /There is no table absent/);
  await refused(to('mixed', folder), /mixed has vectors of 2 models \(.*x\)/);
  await refused(to('bare', folder), /bare is empty/);
  assert.deepEqual(await shop.postgres.query("SELECT to_regclass('mixed_other') AS a, to_regclass('bare_changes') AS b"), [{ a: null, b: null }]);
  assert.equal((await shop.run(...to('refused', folder))).status, 0);
  const named = String((await shop.postgres.query('SELECT model FROM refused_models WHERE is_current'))[0]?.['model']);
  await refused(['migrate', '--table', 'refused', '--to', named], /refused shows .* already/);
  await refused(step('refused', '--drop', 'nothing'), /refused has no vectors of nothing, but of /);
  await refused(step('refused', '--drop', named), /is what refused_current shows/);
  const anew = await shop.run(folder, '--table', 'refused', '--reembed');
  assert.equal(anew.status, 2);
  assert.match(anew.stderr, /refused is moving to another model/);
});
