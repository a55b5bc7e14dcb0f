/** The command while everything around it falls over: nothing lost, nothing twice. */
import assert from 'node:assert/strict';
import { after, before, test, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { ClipClient } from 'clipsrv-client';
import { image } from '../../typescript/test/support/images.ts';
import { ClipServer } from '../../typescript/test/support/server.ts';
import type { Running } from './support/cli.ts';
import { Workshop } from './support/workshop.ts';

const IMAGES = 400;
/** Small and one at a time, so that a job is long enough to be killed in the middle. */
const SLOWLY = ['--batch', '4', '--concurrency', '2'];

let shop: Workshop;
let folder: string;

before(async () => {
  shop = await Workshop.open();
  folder = shop.images('catalogue', IMAGES);
  const { status, stderr } = await shop.run(folder, '--table', 'undisturbed', '--create', ...SLOWLY);
  assert.equal(status, 0, stderr);
});
after(() => shop.close());

/** Equal to the table of the run that nothing disturbed: the same rows, and vectors but for the last bit of a float32. */
async function assertUndisturbed(t: TestContext, table: string): Promise<void> {
  const [expected, found] = await Promise.all([shop.rows('undisturbed'), shop.rows(table)]);
  assert.deepEqual(found.map(({ embedding: _, ...row }) => row), expected.map(({ embedding: _, ...row }) => row));
  const differing = found.filter((row, i) => row.embedding !== expected[i]?.embedding);
  t.diagnostic(`${found.length} rows, ${differing.length} vectors with another last bit`);
  for (const [i, row] of found.entries()) {
    const [a, b] = [JSON.parse(row.embedding) as number[], JSON.parse(expected[i]?.embedding ?? '[]') as number[]];
    assert.ok(a.every((value, k) => Math.abs(value - (b[k] ?? Number.NaN)) < 1e-6), row.id);
  }
}

/** The job has found out that something is away, and waits for it. */
async function waits(job: Running): Promise<void> {
  await Promise.race([job.outcome, (async () => {
    while (!/^waiting [\d.]+ s: /m.test(job.stderr())) await delay(20);
  })()]);
  assert.equal(job.child.exitCode, null, `the job ended too early: ${job.stderr()}`);
}

async function startAndWait(table: string, rows: number, ...more: string[]): Promise<Running> {
  const job = shop.launch(folder, '--table', table, '--create', ...SLOWLY, ...more);
  await Promise.race([shop.stored(table, rows), job.outcome]);
  assert.equal(job.child.exitCode, null, `the job ended too early: ${job.stderr()}`);
  return job;
}

test('killed with -9 five times at random moments, the job ends with the same table', async (t) => {
  let rows = 0;
  for (let kill = 1; kill <= 5; kill++) {
    const job = await startAndWait('killed', rows);
    await delay(Math.random() * 150);
    job.child.kill('SIGKILL');
    assert.equal((await job.outcome).signal, 'SIGKILL', 'the job ended before it could be killed');
    const count = await shop.count('killed');
    t.diagnostic(`kill ${kill} at ${count} rows`);
    assert.ok(count > rows && count < IMAGES);
    rows = count;
  }
  const last = await shop.run(folder, '--table', 'killed', ...SLOWLY);
  assert.equal(last.status, 0, last.stderr);
  const [, embedded, done] = /(\d+) embedded with .*, (\d+) already done, 0 failed/.exec(last.stdout) ?? [];
  assert.equal(Number(embedded) + Number(done), IMAGES, last.stdout);
  // What was on its way to the database when the job was killed may arrive after it was counted.
  assert.ok(Number(done) >= rows, last.stdout);
  await assertUndisturbed(t, 'killed');
});

test('the database is killed and comes back: the job waits, and nothing is lost or twice', async (t) => {
  const job = await startAndWait('database_gone', 40);
  await shop.postgres.kill();
  await waits(job);
  await shop.postgres.up();
  const { status, stdout, stderr } = await job.outcome;
  assert.equal(status, 0, stderr);
  assert.match(stderr, /waiting [\d.]+ s: /);
  assert.match(stdout, new RegExp(`${IMAGES} embedded with .*, 0 already done, 0 failed`));
  await assertUndisturbed(t, 'database_gone');
});

test('the server is killed and comes back: the job waits, and nothing is lost or twice', async (t) => {
  const job = await startAndWait('server_gone', 40);
  await shop.server.kill();
  await waits(job);
  await shop.server.up();
  const { status, stderr } = await job.outcome;
  assert.equal(status, 0, stderr);
  assert.match(stderr, /waiting [\d.]+ s: No answer from/);
  await assertUndisturbed(t, 'server_gone');
});

test('the server is stopped in good order and comes back: the job waits, and nothing is lost or twice', async (t) => {
  const job = await startAndWait('server_stopped', 40);
  await shop.server.stop();
  await shop.server.up();
  const { status, stderr } = await job.outcome;
  assert.equal(status, 0, stderr);
  await assertUndisturbed(t, 'server_stopped');
});

test('the server is full, of this job\'s images and of others: each takes its turn, and nothing is lost or twice', async (t) => {
  const small = await ClipServer.start('--max-queue', '64', '--max-images', '32');
  t.after(() => small.stop());
  const crowd = new AbortController();
  const images = Array.from({ length: 64 }, (_, i) => image(i, 320, 240));
  const retry = { maxAttempts: Number.POSITIVE_INFINITY, maxElapsedMs: Number.POSITIVE_INFINITY };
  const client = new ClipClient({ baseUrl: small.url, maxImagesPerRequest: 16, retry });
  const others = (async () => {
    while (!crowd.signal.aborted) await client.embedImages(images, { signal: crowd.signal }).catch(() => undefined);
  })();
  const job = await shop.run(folder, '--server', small.url, '--table', 'crowded', '--create', '--batch', '32', '--concurrency', '8');
  crowd.abort();
  await others;
  assert.equal(job.status, 0, job.stderr);
  const waits = job.stderr.match(/^waiting/gm)?.length ?? 0;
  t.diagnostic(`the job was sent away ${waits} times`);
  assert.ok(waits > 0, 'the server was never full');
  await assertUndisturbed(t, 'crowded');
});

test('when patience ends the job says what stayed away, and the next run goes on from there', async (t) => {
  const job = await startAndWait('patience', 40, '--patience', '1');
  await shop.server.kill();
  const { status, stderr } = await job.outcome;
  assert.equal(status, 3, stderr);
  assert.match(stderr.trim().split('\n').at(-1) ?? '', /No answer from/);
  await shop.server.up();
  assert.equal((await shop.run(folder, '--table', 'patience', ...SLOWLY)).status, 0);
  await assertUndisturbed(t, 'patience');
});

test('Ctrl-C ends the job in good order, and the next run goes on from there', async (t) => {
  const job = await startAndWait('interrupted', 40);
  job.child.kill('SIGINT');
  const { status, stderr } = await job.outcome;
  assert.equal(status, 130);
  assert.match(stderr, /Interrupted: what was stored stays/);
  const next = await shop.run(folder, '--table', 'interrupted', ...SLOWLY);
  assert.match(next.stdout, /, [1-9]\d* already done, 0 failed/);
  await assertUndisturbed(t, 'interrupted');
});

test('two jobs on one table at once do no harm', async (t) => {
  await shop.run(folder, '--table', 'two', '--create', '--dry-run');
  const [first, second] = await Promise.all([1, 2].map(() => shop.run(folder, '--table', 'two', '--create', ...SLOWLY)));
  assert.deepEqual([first?.status, second?.status], [0, 0], `${first?.stderr}${second?.stderr}`);
  await assertUndisturbed(t, 'two');
});
