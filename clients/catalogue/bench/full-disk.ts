/**
 * A database whose disk fills up while a catalogue is embedded and indexed: what the job says, what is there afterwards, how it goes on.
 *
 *   mount -t tmpfs -o size=160m tmpfs DISK; npx tsx clients/catalogue/bench/full-disk.ts DISK [IMAGES=3000]
 *
 * PostgreSQL's data lie on DISK, beside a file that takes what is left of it but some MB, and is deleted when it is full. Starts the
 * database and the server (CLIPSRV_TEST_PYTHON, CLIPSRV_TEST_MODEL) itself.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { image } from '../../typescript/test/support/images.ts';
import { ClipServer } from '../../typescript/test/support/server.ts';
import { launch, type Outcome } from '../test/support/cli.ts';
import { Postgres } from '../test/support/postgres.ts';

const LEFT_BYTES = 3 * 2 ** 20;

const [disk, images = '3000'] = process.argv.slice(2);
if (disk === undefined) throw new Error('name a folder on a small file system');
const folder = mkdtempSync(path.join(tmpdir(), 'clipsrv-disk-'));
process.env['TMPDIR'] = disk;
const [postgres, server] = await Promise.all([Postgres.start('newest'), ClipServer.start()]);
try {
  for (let i = 0; i < Number(images); i++) writeFileSync(path.join(folder, `${i}.png`), image(i));
  const ballast = path.join(disk, 'ballast');
  const fill = (): void => {
    const { bavail, bsize } = statfsSync(disk);
    writeFileSync(ballast, Buffer.alloc(Math.max(0, bavail * bsize - LEFT_BYTES)));
  };
  const run = async (name: string, ...args: string[]): Promise<Outcome> => {
    const outcome = await launch([...args, '--patience', '5'], folder, { DATABASE_URL: postgres.url, CLIP_SERVER_URL: server.url }).outcome;
    console.log(`${name}: status ${outcome.status}\n${(outcome.stdout + outcome.stderr).trim().split('\n').slice(-3).join('\n')}\n`);
    return outcome;
  };
  const again = async (): Promise<void> => {
    rmSync(ballast);
    await postgres.kill();
    await postgres.up();
  };
  await postgres.query('CREATE EXTENSION IF NOT EXISTS vector');
  fill();
  const embedded = await run('embedded on a disk that fills up', '.', '--create');
  assert.ok(embedded.status !== 0);
  await again();
  const [{ count } = { count: 0 }] = await postgres.query<{ count: number }>('SELECT count(*)::int AS count FROM image_embeddings');
  console.log(`${count} rows are there`);
  assert.equal((await run('the same command with space again', '.', '--create')).status, 0);
  fill();
  const indexed = await run('an index on a disk that fills up', 'index', '--sample', '5');
  assert.ok(indexed.status !== 0);
  await again();
  assert.equal((await run('the same command with space again', 'index', '--sample', '5')).status, 0);
  console.log(await postgres.query('SELECT count(*)::int AS rows, count(DISTINCT sha256)::int AS images FROM image_embeddings'));
  console.log(await postgres.query("SELECT indexrelid::regclass::text AS name, indisvalid FROM pg_index WHERE indrelid = 'image_embeddings'::regclass"));
} finally {
  await Promise.all([postgres.remove(), server.stop()]);
  rmSync(folder, { recursive: true });
}
