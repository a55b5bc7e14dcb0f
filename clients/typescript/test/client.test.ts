/** The client against the real server on the bundled model. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { Blob as ForeignBlob } from 'node-fetch';
import {
  BadImagesError,
  ClipClient,
  ERROR_CODES,
  ImageError,
  type RetryNotice,
  UnauthorizedError,
} from 'clipsrv-client';
import { image } from './support/images.ts';
import { ClipServer, MODEL } from './support/server.ts';

let server: ClipServer;
let client: ClipClient;

before(async () => {
  server = await ClipServer.start('--alias', `my model & more=${MODEL}`);
  client = new ClipClient({ baseUrl: server.url });
});
after(() => server.stop());

const norm = (vector: Float32Array): number => Math.hypot(...vector);
const distance = (a: Float32Array, b: Float32Array): number => Math.max(...a.map((value, i) => Math.abs(value - (b[i] ?? NaN))));

test('health and models describe the server that answers', async () => {
  const health = await client.health();
  const models = await client.models();
  assert.equal(health.status, 'healthy');
  assert.equal(health.model, models.current);
  assert.equal(models.details[models.current]?.dimensions, health.dimensions);
  assert.ok(models.details[models.current]?.embedding_id);
});

test('an image has one unit vector, however it is sent', async () => {
  const { dimensions } = await client.health();
  const vector = await client.embedImage(image(1));
  assert.equal(vector.length, dimensions);
  assert.ok(Math.abs(norm(vector) - 1) < 1e-5);
  const bytes = new Uint8Array(image(1));
  for (const form of [bytes, bytes.buffer, new Blob([bytes]), new DataView(bytes.buffer), new ForeignBlob([bytes])]) {
    assert.ok(distance(vector, await client.embedImage(form)) < 1e-6);
  }
});

test('a part of an image has a vector of its own, and one that is not inside is the image\'s fault', async () => {
  const whole = await client.embedImage(image(1));
  assert.ok(distance(whole, await client.embedImage(image(1), { crop: [0, 0, 8, 8] })) > 1e-3);
  await assert.rejects(client.embedImage(image(1), { crop: [0, 0, 5000, 1] }), { name: 'ImageError', code: 'crop_outside_image' });
  await assert.rejects(client.embedImage(image(1), { crop: [0.5, 0, 8, 8] }), { name: 'InvalidRequestError', code: 'invalid_field' });
});

test('a client of a model names it in every request that embeds', async () => {
  const named = new ClipClient({ baseUrl: server.url, model: 'my model & more' });
  assert.ok(distance(await named.embedImage(image(1)), await client.embedImage(image(1))) < 1e-6);
  assert.ok(distance(await named.embedText('a dog'), await client.embedText('a dog')) < 1e-6);
  const other = new ClipClient({ baseUrl: server.url, model: 'no such model' });
  const calls = [
    () => other.embedImage(image(1)), () => other.embedImages([image(1)]), () => other.embedText('a dog'),
    () => other.embedTexts(['a dog']), () => other.classify(image(1), ['a dog']),
  ];
  for (const call of calls) await assert.rejects(call, { code: 'model_not_found', status: 404 });
});

test('hundreds of images go out in many requests and come back in order', async () => {
  const { models, current, details } = await client.models();
  const images = Array.from({ length: 300 }, (_, i) => image(i));
  const results = await client.embedImagesSettled(images);
  assert.ok(models.includes(current));
  for (const i of [0, 31, 32, 150, 299]) {
    const result = results[i];
    assert.ok(result?.ok);
    assert.equal(result.embeddingId, details[current]?.embedding_id);
    assert.ok(distance(result.embedding, await client.embedImage(images[i] ?? Buffer.alloc(0))) < 1e-5, `image ${i}`);
  }
});

test('bad images fail alone, each with the server\'s reason', async () => {
  const images = [image(1), Buffer.from('no image'), image(2), Buffer.alloc(0), image(3).subarray(0, 60)];
  const results = await client.embedImagesSettled(images);
  assert.deepEqual(results.map((result) => result.ok), [true, false, true, false, false]);
  const codes = results.flatMap((result) => (!result.ok && result.error instanceof ImageError ? [result.error.code] : []));
  assert.deepEqual(codes.slice(0, 2), ['not_an_image', 'empty_image']);
  assert.ok(codes.every((code) => (ERROR_CODES as readonly string[]).includes(code)));
  await assert.rejects(client.embedImages(images), BadImagesError);
  await assert.rejects(client.embedImage(Buffer.from('no image')), { name: 'ImageError', status: 422, code: 'not_an_image' });
});

test('more images in a request than the server takes are halved until they fit', async () => {
  const greedy = new ClipClient({ baseUrl: server.url, maxImagesPerRequest: 1000, maxBytesPerRequest: 1 << 30 });
  const vectors = await greedy.embedImages(Array.from({ length: 300 }, (_, i) => image(i)));
  assert.equal(vectors.length, 300);
});

test('texts live in the same space, one or many', async () => {
  const texts = Array.from({ length: 70 }, (_, i) => `a photo of ${i} shoes`);
  const vectors = await client.embedTexts(texts);
  assert.equal(vectors.length, 70);
  const one = await client.embedText(texts[69] ?? '');
  assert.equal(one.length, (await client.health()).dimensions);
  assert.ok(distance(one, vectors[69] ?? one.map(() => 0)) < 1e-5);
  assert.ok(Math.abs(norm(one) - 1) < 1e-5);
});

test('labels are scored against an image, best first, by the template given', async () => {
  const labels = ['a cat', '빨간 하트', 'line one\r\nline "two"', 'shoe'];
  const found = await client.classify(image(1), labels, { template: '{}' });
  assert.deepEqual(found.labels.map(({ label }) => label).sort(), [...labels].sort());
  const picture = await client.embedImage(image(1));
  for (const { label, similarity } of found.labels) {
    const text = await client.embedText(label);
    assert.ok(Math.abs(similarity - text.reduce((sum, value, i) => sum + value * (picture[i] ?? NaN), 0)) < 1e-5, label);
  }
  const scores = found.labels.map(({ score }) => score);
  assert.deepEqual(scores, [...scores].sort((a, b) => b - a));
  assert.equal(found.scoring, 'softmax');
  assert.ok(Math.abs(scores.reduce((sum, score) => sum + score, 0) - 1) < 1e-6);
  assert.deepEqual(found.truncated, []);
  // Of the suite's own model nobody has said which languages it knows.
  assert.deepEqual(found.unknown_script ?? [], MODEL === 'demo' ? ['빨간 하트'] : []);
  const usual = await client.classify(image(1), labels);
  assert.deepEqual(usual, await client.classify(image(1), labels, { template: 'This is a photo of {}.' }));
  await assert.rejects(client.classify(image(1), ['a', 'a']), { code: 'invalid_labels', status: 400 });
});

test('errors of the server arrive as their classes, with the request\'s id', async () => {
  const response = await fetch(`${server.url}/embed`, { method: 'POST', body: new FormData() });
  const { request_id: id } = (await response.json()) as { request_id: string };
  assert.ok(id.length > 0);
  const lost = new ClipClient({ baseUrl: `${server.url}/nowhere` });
  await assert.rejects(lost.models(), { name: 'InvalidRequestError', status: 404, code: 'not_found' });
});

test('a call that began while the server was away succeeds once it is back', async () => {
  await server.kill();
  const patient = new ClipClient({ baseUrl: server.url, retry: { maxAttempts: 100 } });
  const pending = patient.embedImages([image(1), image(2)]);
  await server.up();
  assert.equal((await pending).length, 2);
});

test('a server full to the brim is asked again until every image is done', async () => {
  const retries: number[] = [];
  const onRetry = ({ delayMs }: RetryNotice): void => void retries.push(delayMs);
  const retry = { maxAttempts: 50, maxDelayMs: 1000 };
  const eager = Array.from({ length: 6 }, () => new ClipClient({ baseUrl: server.url, onRetry, retry }));
  const images = Array.from({ length: 128 }, (_, i) => image(i, 320, 240));
  const results = await Promise.all(eager.map((each) => each.embedImages(images)));
  assert.ok(results.every((vectors) => vectors.length === 128));
  assert.ok(retries.length > 0, 'the server was never full: raise the load');
});

test('a server with keys refuses a client without one or with a wrong one, and serves the one that has it', async (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'clipsrv-keys-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = path.join(folder, 'keys');
  writeFileSync(file, 'the-first-key-of-this-test\nthe-second-key-of-this-test\n');
  const guarded = await ClipServer.start('--api-key-file', file);
  t.after(() => guarded.stop());
  const withKey = (key: object): ClipClient => new ClipClient({ baseUrl: guarded.url, ...key });
  await assert.rejects(withKey({}).embedImage(image(1)), UnauthorizedError);
  await assert.rejects(withKey({ apiKey: 'a-wrong-key-of-this-test' }).embedImage(image(1)), UnauthorizedError);
  const vector = await withKey({ apiKey: 'the-second-key-of-this-test' }).embedImage(image(1));
  assert.ok(distance(vector, await client.embedImage(image(1))) < 1e-6);
});
