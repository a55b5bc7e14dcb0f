/** What goes wrong is told, costs no other image, and is over when its cause is. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { image } from '../../../clients/typescript/test/support/images.ts';
import { ClipServer } from '../../../clients/typescript/test/support/server.ts';
import { Visit } from './browser.ts';
import { KEY, server, strict } from './world.ts';

const IMAGES = Array.from({ length: 7 }, (_, seed) => ({ name: `image ${seed}.png`, buffer: image(seed, 60, 40) }));

test('a key is asked for, told wrong, taken, kept for the tab, and forgotten; it is in no address', async () => {
  const visit = await Visit.begin((await strict()).url);
  await visit.says('#notices', 'wants an API key');
  await visit.choose(IMAGES.slice(0, 2)); // they wait
  await visit.page.fill('#key', 'ключ');
  await visit.page.keyboard.press('Enter');
  await visit.says('#notices', 'does not know');
  await visit.page.fill('#key', KEY);
  await visit.page.keyboard.press('Enter');
  await visit.embedded(2);
  await visit.until(() => document.querySelector('#notices')?.childElementCount === 0, null);
  const code = await visit.page.locator('#code').textContent();
  assert.ok(code?.includes('Authorization: Bearer $API_KEY'));
  assert.ok(!(await visit.page.content()).includes(KEY));
  assert.deepEqual(await visit.page.evaluate(() => Object.keys(localStorage)), []);
  await visit.arrive();
  await visit.embedded(2);
  await visit.says('#facts', 'tiny');
  assert.deepEqual(visit.asked.filter((address) => address.includes(KEY)), []);
  await visit.page.click('#forget-key');
  await visit.says('#notices', 'wants an API key');
  await visit.end();
});

test('a server that takes three images and few bytes at once gets all there are, and a large one is named', async () => {
  const visit = await Visit.begin((await strict()).url);
  await visit.page.fill('#key', KEY);
  await visit.page.keyboard.press('Enter');
  await visit.says('#facts', 'tiny');
  const noise = Buffer.from(Array.from({ length: 120_000 }, (_, i) => (i * i * 31) & 255));
  await visit.choose([
    ...IMAGES,
    { name: 'too many bytes.png', buffer: Buffer.concat([image(8), noise]) },
    { name: 'more than one may have.png', buffer: Buffer.concat([image(9), noise.subarray(0, 50_000)]) },
  ]);
  await visit.embedded(7);
  await visit.says('#failures-title', '2 files');
  await visit.page.click('#failures-title');
  await visit.says('#failures li', 'too many bytes.png');
  await visit.says('#failures li', 'more than one may have.png');
  assert.equal(await visit.page.inputValue('#search'), '');
  await visit.end();
});

test('what is no image is named with the reason, and the others are embedded', async () => {
  const visit = await Visit.begin((await server()).url);
  const whole = image(20, 200, 200);
  await visit.choose([
    ...IMAGES.slice(0, 3),
    { name: 'words.png', buffer: Buffer.from('no image at all') },
    { name: 'half.png', buffer: whole.subarray(0, whole.length >> 1) },
    { name: 'nothing.png', buffer: Buffer.alloc(0) },
  ]);
  await visit.embedded(3);
  await visit.says('#failures-title', '3 files could not be embedded');
  await visit.page.click('#failures-title');
  const told = await visit.page.locator('#failures li').allTextContents();
  assert.deepEqual(told.sort(), ['half.png The file is cut off.', 'nothing.png The file is empty.', 'words.png This is no image.']);
  assert.equal((await visit.stored())['images'], 3);
  await visit.end();
});

test('a busy server is asked again after the time it says', async () => {
  const visit = await Visit.begin((await server()).url);
  let busy = true;
  await visit.page.route('**/embed/**', async (route) => {
    if (!busy) return route.fallback();
    const error = { code: 'overloaded', message: 'Full.', details: {} };
    return route.fulfill({ status: 429, headers: { 'Retry-After': '1' }, json: { error, request_id: 'a' } });
  });
  await visit.choose(IMAGES);
  await visit.says('#notices', 'busy');
  busy = false;
  await visit.embedded(7);
  assert.equal(await visit.page.locator('#notices').textContent(), '');
  busy = true;
  await visit.page.fill('#search', 'a dog');
  await visit.says('#notices', 'busy');
  busy = false;
  await visit.ranking('a dog');
  await visit.end();
});

test('a server that goes is waited for, and the images go on where they were, without a file that has gone meanwhile', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'clipsrv-page-'));
  const files = IMAGES.map(({ name }) => path.join(folder, name));
  await Promise.all(IMAGES.map(({ buffer }, i) => writeFile(files[i] ?? '', buffer)));
  const own = await ClipServer.start();
  try {
    const visit = await Visit.begin(own.url);
    await visit.choose(files.slice(0, 2));
    await visit.embedded(2);
    await own.kill();
    await visit.choose(files.slice(2));
    await visit.says('#notices', 'does not answer');
    await visit.says('#facts', 'not reachable');
    await rm(files[4] ?? '');
    await own.up();
    await visit.embedded(6);
    await visit.says('#failures-title', '1 file');
    await visit.page.click('#failures-title');
    await visit.says('#failures li', 'image 4.png The file can no longer be read.');
    await visit.says('#facts', 'ready');
    await visit.until(() => document.querySelector('#notices')?.childElementCount === 0, null);
    await visit.end();
  } finally {
    await own.kill();
    await rm(folder, { recursive: true });
  }
});

test('a browser without room says so, and what is dropped can still be searched', async () => {
  const visit = await Visit.begin((await server()).url);
  const session = await visit.page.context().newCDPSession(visit.page);
  await session.send('Storage.overrideQuotaForOrigin', { origin: new URL(visit.url).origin, quotaSize: 30_000 });
  const large = Array.from({ length: 12 }, (_, seed) => ({ name: `${seed}.png`, buffer: image(seed, 300, 200) }));
  await visit.choose(large.map(({ name, buffer }) => ({ name, buffer: Buffer.concat([buffer, Buffer.alloc(200_000)]) })));
  await visit.embedded(12);
  await visit.says('#notices', 'no more room');
  await visit.page.fill('#search', 'anything');
  assert.equal((await visit.ranking('anything')).length, 12);
  await visit.end();
});
