/** Everyone can use it: by keys alone, by ear, on a narrow screen, by night, in Japanese. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { image } from '../../../clients/typescript/test/support/images.ts';
import { Visit } from './browser.ts';
import { server } from './world.ts';

const IMAGES = Array.from({ length: 9 }, (_, seed) => ({ name: `image-with-a-rather-long-name-${seed}.png`, buffer: image(seed, 60, 40) }));

async function everythingOpen(visit: Visit): Promise<void> {
  await visit.choose([...IMAGES, { name: 'a-file-that-is-no-image-and-has-a-long-name.png', buffer: Buffer.from('words') }]);
  await visit.embedded(9);
  await visit.page.click('#failures-title');
  await visit.page.click('#call summary');
  await visit.page.locator('#grid button').first().click();
  await visit.page.fill('#labels', 'a dog, a label that is longer than others');
  await visit.page.keyboard.press('Enter');
  await visit.page.locator('#scores li').first().waitFor();
}

for (const colorScheme of ['light', 'dark'] as const) {
  test(`axe finds no barrier in ${colorScheme} colours, empty or full`, async () => {
    const visit = await Visit.begin((await server()).url, { colorScheme });
    await visit.says('#facts', 'ready');
    assert.deepEqual(await visit.barriers(), []);
    await everythingOpen(visit);
    assert.deepEqual(await visit.barriers(), []);
    await visit.page.click('#clear');
    assert.deepEqual(await visit.barriers(), []);
    await visit.end();
  });
}

test('320 pixels are wide enough, in both languages', async () => {
  for (const locale of ['en-GB', 'ja-JP']) {
    const visit = await Visit.begin((await server()).url, { locale, viewport: { width: 320, height: 640 } });
    const width = (): Promise<number> => visit.page.evaluate(() => document.documentElement.scrollWidth);
    await visit.says('#facts', 'tiny');
    assert.equal(await width(), 320);
    await everythingOpen(visit);
    assert.equal(await width(), 320);
    await visit.end();
  }
});

test('a browser that asks for Japanese gets it', async () => {
  const visit = await Visit.begin((await server()).url, { locale: 'ja-JP' });
  assert.equal(await visit.page.getAttribute('html', 'lang'), 'ja');
  await visit.says('#add-images', '画像を追加');
  await visit.choose(IMAGES.slice(0, 2));
  await visit.embedded(2);
  await visit.says('#count', '画像2枚');
  await visit.choose([1, 2, 3, 4].map((n) => ({ name: `${n}.txt`, buffer: Buffer.from('no image') })));
  await visit.says('#notices', '画像ではない4件のファイルを除きました：1.txt、2.txt、3.txt、ほか1件。');
  await visit.page.fill('#search', 'a dog');
  await visit.ranking('「a dog」に似ている順');
  await visit.page.route('**/embed/text?*', async (route) => {
    const response = await route.fetch();
    const answer = (await response.json()) as Record<string, unknown>;
    await route.fulfill({ response, json: { ...answer, unknown_script: true } });
  });
  await visit.page.fill('#search', '犬');
  await visit.says('#notices', 'このモデルはこの文字を読めない');
  const english = /[A-Za-z]{4,}/;
  const said = await visit.page.locator('button:visible, label:not(.models):visible, summary:visible').allTextContents();
  assert.deepEqual(said.filter((text) => english.test(text) && !text.includes('.png') && text !== 'Python' && text !== 'TypeScript' && text !== 'curl'), []);
  await visit.end();
});

test('the keyboard reaches all: fields, the grid and its images, the call in each language', async () => {
  const visit = await Visit.begin((await server()).url);
  await visit.choose(IMAGES);
  await visit.embedded(9);
  const focused = (): Promise<string> => visit.page.evaluate(() => document.activeElement?.querySelector('.name')?.textContent ?? document.activeElement?.id ?? '');
  const press = async (key: string, wanted: string): Promise<void> => {
    await visit.page.keyboard.press(key);
    assert.equal(await focused(), wanted, key);
  };
  await visit.page.focus('#search');
  await press('Tab', 'add-images');
  await press('Tab', 'add-folder');
  await press('Tab', 'clear');
  await press('Tab', ''); // the summary of the call
  await visit.page.keyboard.press('Enter');
  await press('Tab', 'tab-curl');
  await press('ArrowLeft', 'tab-typescript');
  await visit.says('#code', 'openAsBlob');
  await press('ArrowRight', 'tab-curl');
  await press('Tab', 'copy');
  await press('Tab', 'code');
  await press('Tab', IMAGES[0]?.name ?? '');
  await press('ArrowRight', IMAGES[1]?.name ?? '');
  await press('End', IMAGES[8]?.name ?? '');
  await press('Home', IMAGES[0]?.name ?? '');
  const columns = await visit.page.evaluate(() => getComputedStyle(document.querySelector('#grid') as Element).gridTemplateColumns.split(' ').length);
  await press('ArrowDown', IMAGES[columns]?.name ?? '');
  await press('ArrowUp', IMAGES[0]?.name ?? '');
  await press('Tab', 'contract'); // one stop for the whole grid
  await press('Shift+Tab', IMAGES[0]?.name ?? '');
  await visit.page.keyboard.press('Enter');
  await visit.ranking(IMAGES[0]?.name ?? '');
  assert.equal(await visit.page.locator('#grid [aria-pressed=true] .name').textContent(), IMAGES[0]?.name);
  assert.equal(await focused(), IMAGES[0]?.name);
  await visit.page.keyboard.press('Escape');
  await visit.ranking('All images');
  await visit.end();
});

test('over plain HTTP from another machine, where a browser allows less, it works all the same', async () => {
  const visit = await Visit.begin((await server()).url.replace('127.0.0.1', 'clip.example'));
  assert.equal(await visit.page.evaluate(() => isSecureContext), false);
  await visit.choose(IMAGES);
  await visit.embedded(9);
  await visit.page.fill('#search', 'a dog');
  assert.equal((await visit.ranking('a dog')).length, 9);
  await visit.page.click('#call summary');
  await visit.page.click('#copy');
  await visit.says('#copy', 'Copied');
  await visit.page.focus('#search');
  await visit.page.keyboard.press('Control+a');
  await visit.page.keyboard.press('Control+v');
  assert.match(await visit.page.inputValue('#search'), /^curl 'http:\/\/clip\.example:/);
  await visit.arrive();
  await visit.embedded(9);
  await visit.end();
});
