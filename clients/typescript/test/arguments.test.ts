/** What is no image, no text or no number is refused before anything is sent: the server here counts what reaches it. */
import assert from 'node:assert/strict';
import { createReadStream } from 'node:fs';
import { test, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Blob as ForeignBlob } from 'node-fetch';
import { ClipClient, ClipTimeoutError, generateEmbeddingLocal, generateEmbeddingsBatch, type ImageBytes } from 'clipsrv-client';
import { FormData } from 'clipsrv-client/form-data';
import { after, embed, scriptedServer, silence, type ScriptedServer, type Step } from './support/scripted-server.ts';

const image = Buffer.from('image');

async function against(t: TestContext, step: Step): Promise<ScriptedServer> {
  const server = await scriptedServer(step);
  t.after(() => server.close());
  return server;
}

const NO_IMAGES: Readonly<Record<string, unknown>> = {
  undefined: undefined, null: null, 'a path': 'photo.jpg', 'a number': 5, 'an array': [1, 2, 3], 'an object': {}, 'a function': () => image,
  'a promise': Promise.resolve(image), 'a read stream': createReadStream(import.meta.filename), 'a web stream': new Blob(['x']).stream(),
};

test('what is no image is a TypeError that says what it is, and no request', async (t) => {
  const server = await against(t, embed);
  const client = new ClipClient({ baseUrl: server.url });
  for (const [name, value] of Object.entries(NO_IMAGES)) {
    const wrong = value as ImageBytes;
    await assert.rejects(client.embedImage(wrong), TypeError, name);
    await assert.rejects(client.embedImages([image, wrong]), { name: 'TypeError', message: /^images\[1\] is / }, name);
    await assert.rejects(client.embedImagesSettled([wrong]), TypeError, name);
  }
  await assert.rejects(client.embedImages(image as unknown as Buffer[]), /images\[0\] is a number/);
  await assert.rejects(client.embedImage('photo.jpg' as unknown as Buffer), /is a string.*await readFile/);
  await assert.rejects(client.embedImage(NO_IMAGES['a read stream'] as Buffer), /is a ReadStream.*node:stream\/consumers/);
  assert.equal(server.received.length, 0);
});

test('in a stream what is no image is that item\'s result, and the others are embedded', async (t) => {
  const server = await against(t, embed);
  const client = new ClipClient({ baseUrl: server.url });
  const results = [];
  for await (const result of client.embedStream([image, undefined, image], (item) => item as Buffer)) results.push(result);
  assert.deepEqual(results.map(({ ok }) => ok), [true, false, true]);
  assert.ok(results[1]?.ok === false && results[1].error instanceof TypeError);
  assert.deepEqual(server.received.map(({ images }) => images), [2]);
});

test('the guide\'s helpers refuse what is no image too', async () => {
  await assert.rejects(generateEmbeddingLocal(undefined as unknown as Buffer), TypeError);
  await assert.rejects(generateEmbeddingsBatch([image, 'b.jpg' as unknown as Buffer]), TypeError);
});

test('what is no text is a TypeError and no request', async (t) => {
  const server = await against(t, embed);
  const client = new ClipClient({ baseUrl: server.url });
  for (const wrong of [undefined, null, 5, ['a'], {}, Buffer.from('a')] as unknown as string[]) {
    await assert.rejects(client.embedText(wrong), TypeError);
    await assert.rejects(client.embedTexts(['a', wrong]), { name: 'TypeError', message: /^texts\[1\] is / });
    await assert.rejects(client.classify(image, ['a', wrong]), { name: 'TypeError', message: /^labels\[1\] is / });
  }
  await assert.rejects(client.classify(image, 'cat,dog' as unknown as string[]), /give a list of labels/);
  await assert.rejects(client.classify(image, ['a'], { template: 5 as unknown as string }), /^TypeError: template is /);
  await assert.rejects(client.embedTexts('one text' as unknown as string[]), /embedText takes one/);
  assert.equal(server.received.length, 0);
});

test('numbers that cannot be meant are refused when the client is made', () => {
  for (const value of [0, -1, 1.5, NaN, -Infinity, '5' as unknown as number]) {
    assert.throws(() => new ClipClient({ timeoutMs: value }), /timeoutMs must be a whole number above 0/);
    assert.throws(() => new ClipClient({ concurrency: value }), RangeError);
    assert.throws(() => new ClipClient({ retry: { maxAttempts: value } }), RangeError);
  }
  for (const value of [-1, NaN]) {
    assert.throws(() => new ClipClient({ retry: { maxElapsedMs: value } }), /retry.maxElapsedMs must be 0 or more/);
    assert.throws(() => new ClipClient({ retry: { baseDelayMs: value } }), RangeError);
  }
  assert.throws(() => new ClipClient({ concurrency: Infinity }), RangeError);
});

test('waiting for a server that is away needs a number to wait', async () => {
  await assert.rejects(new ClipClient({ baseUrl: 'http://127.0.0.1:9' }).waitUntilReady(NaN), RangeError);
});

test('a time limit beyond what a timer holds waits for the answer', async (t) => {
  const server = await against(t, after(50, embed));
  for (const timeoutMs of [2 ** 31 - 1, 2 ** 31, Number.MAX_SAFE_INTEGER, Infinity]) {
    const client = new ClipClient({ baseUrl: server.url, timeoutMs, retry: { maxAttempts: 1 } });
    assert.deepEqual([...(await client.embedImage(image))], [0, 0.5], String(timeoutMs));
  }
  const silent = await against(t, silence);
  const hasty = new ClipClient({ baseUrl: silent.url, timeoutMs: 30, retry: { maxAttempts: 1 } });
  await assert.rejects(hasty.embedImage(image), ClipTimeoutError);
});

test('a Retry-After of months is waited for and not sent again at once', async (t) => {
  const server = await against(t, (_request, response) => response.writeHead(503, { 'Retry-After': '99999999' }).end());
  const controller = new AbortController();
  const client = new ClipClient({ baseUrl: server.url, retry: { maxElapsedMs: Infinity } });
  const call = client.embedImage(image, { signal: controller.signal });
  await Promise.race([call.catch(() => undefined), delay(200)]);
  controller.abort(new Error('enough'));
  await assert.rejects(call, /enough/);
  assert.equal(server.received.length, 1);
});

test('the form takes text, bytes and Blobs, and keeps a file\'s name', async () => {
  const form = new FormData();
  const bytes = new Uint8Array([1, 2, 3]);
  form.append('image', Buffer.from(bytes), { filename: 'a.jpg', contentType: 'image/jpeg' });
  form.append('image', bytes, 'b.jpg');
  form.append('image', bytes.buffer);
  form.append('image', new DataView(bytes.buffer), 'd.jpg');
  form.append('image', new File([bytes], 'e.jpg', { type: 'image/jpeg' }));
  form.append('image', new File([bytes], 'e.jpg'), 'f.jpg');
  form.append('image', new Blob([bytes]));
  const parts = form.getAll('image') as unknown as File[];
  assert.deepEqual(parts.map(({ name }) => name), ['a.jpg', 'b.jpg', 'blob', 'd.jpg', 'e.jpg', 'f.jpg', 'blob']);
  assert.deepEqual([parts[0]?.type, parts[4]?.type], ['image/jpeg', 'image/jpeg']);
  for (const part of parts) assert.deepEqual(new Uint8Array(await part.arrayBuffer()), bytes);
  form.set('image', Buffer.from('x'), { filename: 'g.jpg' });
  form.set('text', 'words');
  form.append('text', 5 as unknown as string);
  assert.deepEqual(form.getAll('text'), ['words', '5']);
  assert.deepEqual((form.getAll('image') as unknown as File[]).map(({ name, size }) => [name, size]), [['g.jpg', 1]]);
});

test('what a form cannot send is a TypeError, and never a text that says [object ...]', () => {
  const wrong = { ...NO_IMAGES, 'node-fetch\'s Blob': new ForeignBlob(['x']) };
  delete (wrong as Record<string, unknown>)['a path'];
  delete (wrong as Record<string, unknown>)['a number'];
  for (const [name, value] of Object.entries(wrong)) {
    const form = new FormData();
    assert.throws(() => form.append('image', value as Blob), TypeError, name);
    assert.throws(() => form.append('image', value as Blob, { filename: 'a.jpg' }), TypeError, name);
    assert.throws(() => form.set('image', value as Blob), TypeError, name);
    assert.deepEqual([...form.keys()], []);
  }
});
