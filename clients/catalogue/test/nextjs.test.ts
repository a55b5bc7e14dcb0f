/** The routes of the Next.js application, called as Next.js calls them, on a real catalogue. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { POST } from '../../nextjs/app/api/generate-embedding/route.ts';
import { GET as getImage } from '../../nextjs/app/api/image/route.ts';
import { GET as search } from '../../nextjs/app/api/search/route.ts';
import { disconnect } from '../../nextjs/lib/catalogue.ts';
import { image } from '../../typescript/test/support/images.ts';
import { Workshop } from './support/workshop.ts';

let shop: Workshop;
let photos: string;
before(async () => {
  shop = await Workshop.open();
  photos = shop.images('photos', 12);
  Object.assign(process.env, { DATABASE_URL: shop.postgres.url, CLIP_SERVER_URL: shop.server.url, PHOTOS: photos });
});
after(async () => {
  await disconnect();
  await shop.close();
});

const upload = (bytes: Buffer, field = 'image'): Promise<Response> => {
  const body = new FormData();
  body.append(field, new Blob([new Uint8Array(bytes)]), 'photo.png');
  return POST(new Request('http://shop/api/generate-embedding', { method: 'POST', body }));
};
const get = (route: (request: Request) => Promise<Response>, query: Record<string, string>): Promise<Response> =>
  route(new Request(`http://shop/api?${new URLSearchParams(query)}`));
const told = async (response: Response): Promise<[number, string]> => [response.status, ((await response.json()) as { error: string }).error];

test('an upload is embedded, kept, found and shown, and the catalogue job finds it where its row says', async () => {
  const said = console.error;
  console.error = () => undefined;
  assert.deepEqual(await told(await upload(image(99))), [503, 'There is no catalogue yet: npm run catalogue -- photos --create --index']);
  console.error = said;
  assert.equal((await shop.run(photos, '--create', '--index')).status, 0);
  const answer = await upload(image(99));
  assert.equal(answer.status, 200);
  const { id, embedding, dimensions, model } = (await answer.json()) as { id: string; embedding: number[]; dimensions: number; model: string };
  assert.match(id, /^uploads\/[0-9a-f]{64}\.png$/);
  assert.deepEqual([embedding.length, typeof model], [dimensions, 'string']);
  assert.ok(Math.abs(Math.hypot(...embedding) - 1) < 1e-5);
  assert.deepEqual(readFileSync(path.join(photos, id)), image(99));
  assert.equal((await upload(image(99))).status, 200);
  assert.equal(await shop.count('image_embeddings'), 13);
  const like = (await (await get(search, { like: id })).json()) as { hits: { id: string; src: string; similarity: number }[] };
  assert.equal(like.hits.length, 12);
  assert.deepEqual([like.hits[0]?.id, like.hits[0]?.src], [id, `/api/image?id=${encodeURIComponent(id)}`]);
  assert.ok((like.hits[0]?.similarity ?? 0) > 0.9999);
  const words = (await (await get(search, { text: 'a red dress' })).json()) as { hits: unknown[] };
  assert.equal(words.hits.length, 12);
  const shown = await get(getImage, { id });
  assert.deepEqual([shown.headers.get('content-type'), shown.headers.get('x-content-type-options')], ['image/png', 'nosniff']);
  assert.deepEqual(Buffer.from(await shown.arrayBuffer()), image(99));
  assert.match((await shop.run(photos)).stdout, /^13 in the catalogue: 0 embedded with .*, 13 already done, 0 failed$/m);
});

test('what is no image, too much, or of no catalogue is refused in a sentence, and nothing of it is kept', async () => {
  const kept = readdirSync(path.join(photos, 'uploads')).length;
  assert.deepEqual(await told(await upload(Buffer.from('no image'))), [415, 'PNG, JPEG, WebP, GIF and AVIF are shown here.']);
  assert.deepEqual(await told(await upload(Buffer.from('<svg onload="alert(1)"/>'))), [415, 'PNG, JPEG, WebP, GIF and AVIF are shown here.']);
  const [status, message] = await told(await upload(image(98).subarray(0, 100)));
  assert.ok(status === 400 || status === 422, `${status} ${message}`);
  assert.deepEqual(await told(await upload(image(98), 'photo')), [400, 'Send an image in the field "image" of a form.']);
  assert.deepEqual((await told(await POST(new Request('http://shop', { method: 'POST', body: 'x' }))))[0], 400);
  const large = new Request('http://shop', { method: 'POST', headers: { 'content-length': '99999999' }, body: 'x' });
  assert.equal((await told(await POST(large)))[0], 413);
  assert.equal(readdirSync(path.join(photos, 'uploads')).length, kept);
  assert.deepEqual(await told(await get(search, {})), [400, 'Say what to look for: ?text= or ?like=']);
  for (const id of ['nowhere.png', '../secret.png', '/etc/passwd']) {
    assert.deepEqual(await told(await get(search, { like: id })), [404, 'There is no such image.']);
    assert.deepEqual(await told(await get(getImage, { id })), [404, 'There is no such image.']);
  }
  // Also where a row says so: nothing outside the folder of images is shown, and nothing in it that is none.
  writeFileSync(path.join(shop.folder, 'secret.png'), image(97));
  writeFileSync(path.join(photos, 'page.png'), '<script>alert(1)</script>');
  await shop.postgres.query("INSERT INTO image_embeddings SELECT v, v, sha256, embedding_id, embedding FROM image_embeddings, unnest(ARRAY['../secret.png', 'page.png']) AS v WHERE id = '00000.png'");
  for (const id of ['../secret.png', 'page.png']) assert.equal((await get(getImage, { id })).status, 404);
});
