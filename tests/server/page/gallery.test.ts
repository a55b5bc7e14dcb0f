/** A server with an index: its images are the gallery, with small copies of the files that are still what was indexed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { image } from '../../../clients/typescript/test/support/images.ts';
import { Visit } from './browser.ts';
import { indexed } from './world.ts';

interface Found {
  results: { path: string; score: number }[];
}

async function searched(body: object): Promise<{ name: string; score: number }[]> {
  const headers = { 'Content-Type': 'application/json' };
  const response = await fetch(`${(await indexed()).url}/search?limit=200`, { method: 'POST', headers, body: JSON.stringify(body) });
  const { results } = (await response.json()) as Found;
  return results.map(({ path, score }) => ({ name: path.slice('photos/'.length), score: Number(score.toFixed(3)) }));
}

test('the index is the gallery: all its images as one goes on, found by words and by likeness', async () => {
  const visit = await Visit.begin((await indexed()).url);
  await visit.says('#indexed h2', '260 images of the index');
  await visit.until(() => document.querySelectorAll('#indexed img').length >= 50, null);
  await visit.says('#indexed li:nth-child(5) .kind', 'PNG'); // its file is gone
  await visit.until(() => {
    scrollTo({ top: document.body.scrollHeight, behavior: 'instant' });
    return document.querySelectorAll('#indexed li').length === 260;
  }, null);

  await visit.page.fill('#search', 'a red heart');
  const ranking = await visit.ranking('a red heart', '#indexed');
  assert.deepEqual(ranking, (await searched({ text: 'a red heart' })).slice(0, 60));
  await visit.says('#told', '200 images ranked');
  await visit.page.click('#call summary');
  await visit.says('#code', '/search?limit=10');

  const name = ranking[2]?.name ?? '';
  await visit.page.locator('#indexed button', { hasText: name }).click();
  const [first, second] = await visit.ranking(name, '#indexed');
  assert.deepEqual(first, { name, score: 1 });
  assert.ok(second && second.score < 1);
  await visit.says('#code', `photos/${name}`);
  assert.equal(await visit.page.inputValue('#search'), '');
  assert.deepEqual(await visit.barriers(), []);
  await visit.page.keyboard.press('Escape');
  await visit.says('#indexed h2', '260 images of the index');
  assert.equal(visit.count('/embed/batch'), 0);
  await visit.page.setViewportSize({ width: 320, height: 640 });
  assert.equal(await visit.page.evaluate(() => document.documentElement.scrollWidth), 320);
  await visit.end();
});

test('what is dropped beside an index is looked at by itself, and the way back is a button', async () => {
  const visit = await Visit.begin((await indexed()).url);
  await visit.says('#indexed h2', '260');
  await visit.choose(Array.from({ length: 3 }, (_, seed) => ({ name: `mine ${seed}.png`, buffer: image(seed) })));
  await visit.embedded(3);
  await visit.page.locator('#indexed').waitFor({ state: 'hidden' });
  await visit.page.fill('#search', 'a dog');
  assert.equal((await visit.ranking('a dog')).length, 3);
  await visit.page.click('#source-index');
  assert.deepEqual(await visit.ranking('a dog', '#indexed'), (await searched({ text: 'a dog' })).slice(0, 60));
  await visit.page.locator('#results').waitFor({ state: 'hidden' });
  await visit.page.click('#source-here');
  assert.equal((await visit.ranking('a dog')).length, 3);
  await visit.end();
});
