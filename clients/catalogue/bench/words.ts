/**
 * What words add to vectors: how often the first hit has the name that was asked for, and how long a search takes.
 *
 *   npx tsx clients/catalogue/bench/words.ts FOLDER NAMES.csv
 *
 * NAMES.csv has the columns id, name and name_ja, an id for each file of FOLDER. Starts the server (CLIPSRV_TEST_PYTHON, CLIPSRV_TEST_MODEL)
 * and the newest pgvector itself; 200 of the names are the questions, in either language, one search after the other.
 */
import { ClipClient } from 'clipsrv-client';
import { Database } from '../src/database.ts';
import { find } from '../src/hybrid/find.ts';
import { gramsIndex, makeFunction, type Texts } from '../src/hybrid/function.ts';
import { makeIndex } from '../src/indexes/make.ts';
import { records } from '../src/sources/files.ts';
import { VectorTable } from '../src/tables/table.ts';
import { Workshop } from '../test/support/workshop.ts';

const QUESTIONS = 200;
const [folder, names] = process.argv.slice(2);
if (folder === undefined || names === undefined) throw new Error('name a folder of images and a CSV of their names');
const shop = await Workshop.open('newest');
const database = new Database({ url: shop.postgres.url, patienceMs: 10_000 });
try {
  process.stdout.write((await shop.run(folder, '--create', '--index')).stdout);
  await shop.postgres.query('CREATE TABLE names (id text PRIMARY KEY, name text, name_ja text)');
  const rows: string[][] = [];
  for await (const { record } of records(names, ['id', 'name', 'name_ja'])) rows.push([record['id'], record['name'], record['name_ja']].map(String));
  await shop.postgres.query('INSERT INTO names SELECT * FROM unnest($1::text[], $2::text[], $3::text[])', [0, 1, 2].map((i) => rows.map((row) => row[i])));
  const texts: Texts = { columns: ['name', 'name_ja'], items: 'names', itemsId: 'id' };
  await makeFunction(database, 'image_embeddings', 'image_embeddings', texts);
  const table = new VectorTable(database, 'image_embeddings');
  const [embeddingId = ''] = await table.kinds();
  const client = new ClipClient({ baseUrl: shop.server.url });
  const named = new Map(rows.map(([id = '', name, nameJa]) => [id, [name, nameJa]]));

  async function ask(language: 0 | 1, way: string, search: (words: string, vector: Float32Array) => Promise<readonly { id: string }[]>): Promise<void> {
    const asked = [...new Set(rows.map((row) => row[language + 1] ?? ''))];
    const questions = Array.from({ length: QUESTIONS }, (_, i) => asked[Math.floor((i * asked.length) / QUESTIONS)] ?? '');
    const vectors = await client.embedTexts(questions);
    let right = 0;
    const took: number[] = [];
    for (const [i, words] of questions.entries()) {
      const begun = performance.now();
      const [first] = await search(words, vectors[i] ?? new Float32Array());
      took.push(performance.now() - begun);
      if (named.get(first?.id ?? '')?.[language] === words) right++;
    }
    took.sort((a, b) => a - b);
    console.log(`${['English', 'Japanese'][language]}, ${way}: the first of ${table.name} is right in ${((100 * right) / QUESTIONS).toFixed(1)} %, ${took[QUESTIONS / 2]?.toFixed(1)} ms (median)`);
  }
  const both = (words: string, vector: Float32Array): Promise<readonly { id: string }[]> =>
    find(database, 'image_embeddings', { words, vector, embeddingId, limit: 10, filters: {}, notWords: [], notVectors: [] });
  for (const language of [0, 1] as const) {
    await ask(language, 'vectors alone', (_, vector) => table.nearest(vector, embeddingId, 10));
    await ask(language, 'vectors and words, every row read for words', both);
  }
  for (const column of texts.columns) await makeIndex(database, gramsIndex('image_embeddings', 'names', column), () => undefined, new AbortController().signal);
  for (const language of [0, 1] as const) await ask(language, 'vectors and words, by their indexes', both);
} finally {
  await database.close();
  await shop.close();
}
