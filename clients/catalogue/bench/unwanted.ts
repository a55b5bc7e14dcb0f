/**
 * What `--not` does to a search by vectors alone, by how much it weighs: of the first five for a shape without a colour, how many are right.
 *
 *   npx tsx clients/catalogue/bench/unwanted.ts FOLDER
 *
 * The files of FOLDER have names such as blue-heart.png. Every colour that a heart, a circle or a square is there in is once what is not
 * wanted. Starts the server (CLIPSRV_TEST_PYTHON, CLIPSRV_TEST_MODEL) and the newest pgvector itself.
 */
import { ClipClient } from 'clipsrv-client';
import { Database } from '../src/database.ts';
import { find } from '../src/hybrid/find.ts';
import { makeFunction, NO_TEXTS } from '../src/hybrid/function.ts';
import { VectorTable } from '../src/tables/table.ts';
import { Workshop } from '../test/support/workshop.ts';

const SHAPES = ['heart', 'circle', 'square'];
const COLOURS = ['red', 'orange', 'yellow', 'green', 'blue', 'light-blue', 'purple', 'brown', 'pink', 'black', 'grey', 'white'];
const FIRST = 5;
const WEIGHTS = [0.1, 0.25, 0.5, 0.75, 1];

const folder = process.argv[2];
if (folder === undefined) throw new Error('name a folder of images');
const shop = await Workshop.open('newest');
const database = new Database({ url: shop.postgres.url, patienceMs: 10_000 });
try {
  process.stdout.write((await shop.run(folder, '--create')).stdout);
  await makeFunction(database, 'image_embeddings', 'image_embeddings', NO_TEXTS);
  const [embeddingId = ''] = await new VectorTable(database, 'image_embeddings').kinds();
  const ids = (await shop.rows('image_embeddings')).map(({ id }) => id);
  const client = new ClipClient({ baseUrl: shop.server.url });
  const asked = SHAPES.flatMap((shape) => COLOURS.filter((colour) => ids.includes(`${colour}-${shape}.png`)).map((colour) => ({ shape, colour })));
  const [{ definition } = { definition: '' }] = await shop.postgres.query<{ definition: string }>(
    "SELECT pg_get_functiondef('image_embeddings_search'::regproc) AS definition");
  const weighed = /(w\.z - )[\d.]+( \* coalesce\(u\.z, 0\))/;
  if (!weighed.test(definition)) throw new Error('image_embeddings_search weighs what is not wanted in another way');

  async function ask(name: string, isTold: boolean): Promise<void> {
    const found = { right: 0, unwanted: 0, all: 0 };
    for (const { shape, colour } of asked) {
      const [vector = new Float32Array(), not = new Float32Array()] = await client.embedTexts([shape, colour.replace('-', ' ')]);
      const hits = await find(database, 'image_embeddings', { words: undefined, vector, embeddingId, limit: FIRST, filters: {}, notWords: [], notVectors: isTold ? [not] : [] });
      for (const { id } of hits) {
        const words = id.replace('.png', '').split('-');
        const isShape = words.includes(shape) || words.includes(`${shape}s`);
        const isUnwanted = colour.split('-').every((word) => words.includes(word));
        found.all++;
        if (isShape && isUnwanted) found.unwanted++;
        else if (isShape) found.right++;
      }
    }
    const share = (count: number): string => `${((100 * count) / found.all).toFixed(0)} %`;
    console.log(`${name}: of the first ${FIRST} of ${asked.length} searches ${share(found.right)} are the shape without the colour, ${share(found.unwanted)} with it`);
  }
  await ask('not told', false);
  for (const weight of WEIGHTS) {
    await shop.postgres.query(definition.replace(weighed, `$1${weight}$2`));
    await ask(`weight ${weight}`, true);
  }
} finally {
  await database.close();
  await shop.close();
}
