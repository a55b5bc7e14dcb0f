/**
 * A catalogue moves to another model while a shop reads and writes it and the job is killed five times; prints the figures of docs/catalogue.md.
 *
 *   npx tsx clients/catalogue/bench/migrate-under-load.ts [IMAGES=20000]
 *
 * Starts the database and one server with both models itself: CLIPSRV_TEST_PYTHON, CLIPSRV_TEST_MODEL (default: demo). The second model is
 * the small one of the tests. At the end every row of both tables is compared with what its model makes of its image.
 */
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { ClipClient, group } from 'clipsrv-client';
import { MODEL } from '../../typescript/test/support/server.ts';
import { launch, type Outcome } from '../test/support/cli.ts';
import { serverOfBoth } from '../test/support/models.ts';
import { Shop } from '../test/support/shop.ts';
import { Workshop } from '../test/support/workshop.ts';

const KILLS = 5;
const POLL_MS = 250;

const images = Number(process.argv[2] ?? 20_000);
const models = mkdtempSync(path.join(tmpdir(), 'clipsrv-models-'));
const [workshop, both] = await Promise.all([Workshop.open(), serverOfBoth(models)]);
try {
  const seconds = (since: number): string => ((performance.now() - since) / 1000).toFixed(1);
  const run = async (...args: string[]): Promise<Outcome> => {
    const outcome = await launch(args, workshop.folder, { DATABASE_URL: workshop.postgres.url, CLIP_SERVER_URL: both.url }).outcome;
    if (outcome.status !== 0 && outcome.status !== 1) throw new Error(outcome.stderr);
    return outcome;
  };
  const folder = workshop.images('moving', images);
  let start = performance.now();
  const own = await launch([folder, '--table', 'moving', '--create', '--index'], workshop.folder, { DATABASE_URL: workshop.postgres.url, CLIP_SERVER_URL: workshop.server.url }).outcome;
  if (own.status !== 0) throw new Error(own.stderr);
  console.log(`embedded with the first model, and indexed: ${images} images in ${seconds(start)} s`);
  await workshop.server.stop(); // from here on one server has both models
  const { details } = await new ClipClient({ baseUrl: both.url }).models();
  const clients = new Map(['other', MODEL].map((model) => [details[model]?.embedding_id ?? '', new ClipClient({ baseUrl: both.url, model })]));
  const shop = new Shop({ url: workshop.postgres.url, table: 'moving', folder, images, clients });
  start = performance.now();
  const to = ['migrate', '--to', 'other', '--table', 'moving', '--base', folder];
  const killed: number[] = [];
  const filledRows = async (): Promise<number> =>
    (await workshop.postgres.query<{ there: boolean }>("SELECT to_regclass('moving_other') IS NOT NULL AS there"))[0]?.there ? workshop.count('moving_other') : 0;
  for (let kill = 1; kill <= KILLS; kill++) {
    const job = launch(to, workshop.folder, { DATABASE_URL: workshop.postgres.url, CLIP_SERVER_URL: both.url });
    while ((await filledRows()) < (images * kill) / (KILLS + 1) && job.child.exitCode === null) await delay(POLL_MS);
    job.child.kill('SIGKILL');
    if ((await job.outcome).signal !== 'SIGKILL') throw new Error(`the job ended before it could be killed: ${job.stderr()}`);
    killed.push(await workshop.count('moving_other'));
  }
  const filled = await run(...to);
  console.log(`moved in ${seconds(start)} s, killed at ${killed.join(', ')} rows`);
  process.stdout.write(filled.stdout);
  for (const turn of ['--switch', '--rollback', '--switch']) {
    start = performance.now();
    const { stdout } = await run('migrate', turn, '--table', 'moving', '--base', folder);
    console.log(`${turn}: ${stdout.trim()} (${seconds(start)} s)`);
  }
  await shop.close();
  // What the shop wrote in the last moments is carried to the table that is not shown.
  const following = launch(['migrate', '--switch', '--follow', '--table', 'moving', '--base', folder], workshop.folder, { DATABASE_URL: workshop.postgres.url, CLIP_SERVER_URL: both.url });
  while ((await workshop.count('moving_changes')) > 0 && following.child.exitCode === null) await delay(POLL_MS);
  following.child.kill('SIGINT');
  await following.outcome;
  const { tally } = shop;
  // Every row of both tables, beside what its model makes of the file that it names.
  let rows = 0;
  const wrong: string[] = [];
  for (const table of ['moving', 'moving_other']) {
    for await (const batch of group(await workshop.rows(table), 1024, Infinity, () => 0)) {
      const files = batch.map(({ location }) => readFileSync(path.join(folder, location)));
      const vectors = await clients.get(batch[0]?.embedding_id ?? '')?.embedImages(files);
      for (const [i, row] of batch.entries()) {
        const found = JSON.parse(row.embedding) as number[];
        const isRight = row.embedding_id === batch[0]?.embedding_id && row.sha256 === createHash('sha256').update(files[i] ?? '').digest('hex')
          && vectors?.[i]?.every((value, k) => Math.abs(value - (found[k] ?? Number.NaN)) < 1e-5);
        rows++;
        if (!isRight) wrong.push(`${table}: ${row.id} of ${row.embedding_id}`);
      }
    }
  }
  console.log(`${tally.queries} queries and ${tally.writes} writes meanwhile: ${tally.failed.length} failed, ${tally.askedAgain} asked again at a switch; ${tally.mixed.length} answers mixed; ${rows} rows of both tables compared at the end: ${wrong.length} wrong`);
  if (tally.failed.length + tally.mixed.length + wrong.length > 0) throw new Error([...tally.failed, ...tally.mixed, ...wrong].slice(0, 10).join('\n'));
} finally {
  await Promise.all([workshop.close(), both.stop()]);
  rmSync(models, { recursive: true });
}
