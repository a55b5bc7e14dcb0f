/** Images come in, are seen, found, scored, kept, and removed; their vectors are the server's own. */
import assert from 'node:assert/strict';
import { mkdtemp, mkdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { image } from '../../../clients/typescript/test/support/images.ts';
import { Visit } from './browser.ts';
import { client, server, tiff } from './world.ts';

const IMAGES = Array.from({ length: 6 }, (_, seed) => ({ name: `image ${seed}.png`, buffer: image(seed, 60, 40) }));
IMAGES[5] = { name: '<img src=x onerror=alert(1)>&amp;.png', buffer: image(5, 60, 40) };

function cosine(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, value, i) => sum + value * (b[i] ?? 0), 0);
}

async function expected(query: Float32Array): Promise<{ name: string; score: number }[]> {
  const vectors = await (await client()).embedImages(IMAGES.map(({ buffer }) => buffer));
  return IMAGES.map(({ name }, i) => ({ name, score: Number(cosine(vectors[i] ?? query, query).toFixed(3)) })).sort(
    (a, b) => b.score - a.score,
  );
}

test('images are ranked by words, and by one of them, as the vectors of the server say', async () => {
  const visit = await Visit.begin((await server()).url);
  await visit.choose(IMAGES);
  await visit.embedded(6);
  assert.deepEqual((await visit.ranking('All images')).map(({ name }) => name), IMAGES.map(({ name }) => name));

  await visit.page.fill('#search', 'a red heart');
  assert.deepEqual(await visit.ranking('a red heart'), await expected(await (await client()).embedText('a red heart')));
  await visit.says('#told', '6 images ranked');

  await visit.page.locator('#grid button', { hasText: 'image 3.png' }).click();
  const vector = await (await client()).embedImage(image(3, 60, 40));
  const ranking = await visit.ranking('image 3.png');
  assert.deepEqual(ranking, await expected(vector));
  assert.deepEqual(ranking[0], { name: 'image 3.png', score: 1 });
  assert.equal(await visit.page.inputValue('#search'), '');

  await visit.page.keyboard.press('Escape');
  await visit.ranking('All images');
  await visit.end();
});

test('labels are scored as /classify does', async () => {
  const visit = await Visit.begin((await server()).url);
  await visit.choose(IMAGES.slice(0, 1));
  await visit.embedded(1);
  await visit.page.locator('#grid button').click();
  await visit.page.fill('#labels', ' a dog, a cat,a dog, ,a house');
  await visit.page.fill('#template', 'it is {}');
  await visit.page.keyboard.press('Enter');
  await visit.says('#scores-about', '100 %');
  const shown = await visit.page.locator('#scores li').evaluateAll((lines) =>
    lines.map((line) => [...line.children].map((child) => child.lastChild?.textContent ?? '')),
  );
  const { labels } = await (await client()).classify(image(0, 60, 40), ['a dog', 'a cat', 'a house'], { template: 'it is {}' });
  assert.deepEqual(
    shown,
    labels.map(({ label, score, similarity }) => [label, '', `${(100 * score).toFixed(1)} %`, similarity.toFixed(3)]),
  );
  await visit.page.fill('#template', 'no place for it');
  await visit.page.keyboard.press('Enter');
  await visit.says('#notices', 'template');
  await visit.end();
});

test('a folder that is dropped comes in whole, without what is no image, which is named', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'clipsrv-page-'));
  await mkdir(path.join(folder, 'inner'));
  await writeFile(path.join(folder, 'a.png'), image(1));
  await writeFile(path.join(folder, 'inner', 'a.png'), image(2));
  for (const name of ['1.txt', '2.txt', '3.txt', '4.txt', '5.txt']) await writeFile(path.join(folder, 'inner', name), 'no image');
  const visit = await Visit.begin((await server()).url);
  const session = await visit.page.context().newCDPSession(visit.page);
  const data = { items: [], files: [folder], dragOperationsMask: 1 };
  for (const type of ['dragEnter', 'dragOver'] as const) await session.send('Input.dispatchDragEvent', { type, x: 300, y: 400, data });
  await visit.page.locator('#drop').waitFor();
  await session.send('Input.dispatchDragEvent', { type: 'drop', x: 300, y: 400, data });
  await visit.embedded(2);
  const inner = `${path.basename(folder)}/inner`;
  await visit.says('#notices', `5 files left out, no image by name or type: ${inner}/1.txt, ${inner}/2.txt, ${inner}/3.txt and 2 more.`);
  await visit.choose([{ name: 'notes.txt', buffer: Buffer.from('no image') }]);
  await visit.says('#notices', '1 file left out, no image by name or type: notes.txt.');
  await visit.page.locator('#drop').waitFor({ state: 'hidden' });
  await visit.end();
  await rm(folder, { recursive: true });
});

test('what was embedded is there after a reload, and nothing is sent again, until all is removed', async () => {
  const visit = await Visit.begin((await server()).url);
  await visit.choose(IMAGES);
  await visit.embedded(6);
  await visit.choose(IMAGES.slice(0, 2).map((one, i) => ({ ...one, name: `${i}.png` })));
  await visit.embedded(8);
  const sent = visit.count('/embed/batch');
  await visit.arrive();
  await visit.embedded(8);
  await visit.until(() => document.querySelectorAll('#grid img').length === 8, null);
  assert.equal(visit.count('/embed/batch'), sent);
  assert.deepEqual(await visit.stored(), { images: 8, originals: 8, thumbnails: 8, vectors: 8 });

  await visit.page.locator('#grid button').first().click();
  await visit.page.click('#chosen-remove');
  await visit.says('#count', '7');
  await visit.page.click('#clear');
  await visit.page.locator('#confirm button[value=no]').click();
  await visit.says('#count', '7');
  await visit.page.click('#clear');
  await visit.page.locator('#confirm button[value=yes]').click();
  await visit.page.locator('#empty').waitFor();
  assert.deepEqual(await visit.stored(), { images: 0, originals: 0, thumbnails: 0, vectors: 0 });
  await visit.end();
});

test('an image that the browser cannot show is embedded all the same, and stands there by its kind', async () => {
  const visit = await Visit.begin((await server()).url);
  await visit.choose([{ name: 'scan.tiff', buffer: tiff(9, 7) }, ...IMAGES.slice(0, 1)]);
  await visit.embedded(2);
  await visit.says('#grid .kind', 'TIFF');
  await visit.page.locator('#grid button', { hasText: 'scan.tiff' }).click();
  const [first] = await visit.ranking('scan.tiff');
  assert.deepEqual(first, { name: 'scan.tiff', score: 1 });
  await visit.says('#chosen-kind', 'TIFF');
  await visit.end();
});

test('another model has vectors of its own; coming back to the first one asks for none', async () => {
  const visit = await Visit.begin((await server()).url);
  await visit.choose(IMAGES);
  await visit.embedded(6);
  await visit.page.selectOption('#models', 'other');
  await visit.says('#facts', 'other');
  await visit.embedded(6);
  await visit.until(() => document.querySelector('#facts')?.textContent?.startsWith('other') === true, null);
  assert.deepEqual((await visit.stored())['vectors'], 12);
  const sent = visit.count('/embed/batch');
  await visit.page.selectOption('#models', 'tiny');
  await visit.says('#facts', 'tiny');
  await visit.embedded(6);
  assert.equal(visit.count('/embed/batch'), sent);
  await visit.end();
});

test('a thousand images: all are ranked, few are drawn, and the last is reached by going on', async () => {
  const visit = await Visit.begin((await server()).url);
  await visit.choose(Array.from({ length: 1000 }, (_, seed) => ({ name: `${seed}.png`, buffer: image(seed, 24, 18) })));
  await visit.embedded(1000);
  await visit.page.fill('#search', 'anything');
  await visit.says('#told', '1,000 images ranked');
  assert.ok((await visit.page.locator('#grid li').count()) < 500);
  await visit.until(() => {
    scrollTo({ top: document.body.scrollHeight, behavior: 'instant' });
    return document.querySelectorAll('#grid li').length === 1000;
  }, null);
  const scores = (await visit.ranking('anything')).map(({ score }) => score);
  assert.deepEqual(scores, [...scores].sort((a, b) => b - a));
  await visit.end();
});
