/**
 * What smaller vectors lose and save on a folder of images: size of the index, recall@10 through it, how long a search takes.
 *
 *   npx tsx clients/catalogue/bench/small-vectors.ts FOLDER
 *
 * Starts the server (CLIPSRV_TEST_PYTHON, CLIPSRV_TEST_MODEL) and the newest pgvector itself. Every search is the job's own, for rows of
 * the folder, one after the other; an index of each type is made in turn, of an otherwise equal table.
 */
import { Database } from '../src/database.ts';
import { NEIGHBOURS, questionsOf } from '../src/indexes/measure.ts';
import { VectorTable } from '../src/tables/table.ts';
import { Workshop } from '../test/support/workshop.ts';

const folder = process.argv[2];
if (folder === undefined) throw new Error('name a folder of images');
const shop = await Workshop.open('newest');
const database = new Database({ url: shop.postgres.url, patienceMs: 10_000 });
try {
  const embedded = await shop.run(folder, '--create');
  process.stdout.write(embedded.stdout);
  // Also without an index the planner is to know the table.
  await shop.postgres.query('ANALYZE image_embeddings');
  const table = new VectorTable(database, 'image_embeddings');
  const [embeddingId = ''] = await table.kinds();
  const questions = await questionsOf(database, table.name, 0, 200, () => undefined);
  const time = async (name: string): Promise<void> => {
    const took: number[] = [];
    for (const { vector } of questions) {
      const asked = performance.now();
      await table.nearest(Float32Array.from(JSON.parse(vector) as number[]), embeddingId, NEIGHBOURS);
      took.push(performance.now() - asked);
    }
    took.sort((a, b) => a - b);
    console.log(`${name}: a search takes ${took[Math.floor(took.length / 2)]?.toFixed(1)} ms (median of ${took.length})`);
  };
  await time('no index');
  process.stdout.write((await shop.run('index', '--measure')).stdout);
  for (const type of ['vector', 'halfvec', 'bit']) {
    const { status, stdout, stderr } = await shop.run('index', '--type', type, '--replace');
    if (status !== 0) throw new Error(stderr);
    console.log(stdout.trim().split('\n').at(-1));
    await time(type);
  }
} finally {
  await database.close();
  await shop.close();
}
