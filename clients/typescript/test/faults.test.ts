import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { test, type TestContext } from 'node:test';
import {
  BadImagesError, ClipClient, ClipConnectionError, ClipProtocolError, ClipTimeoutError, DeadlineError, ImageError,
  InternalServerError, InvalidRequestError, OverloadedError, TooLargeError, UnauthorizedError, UnavailableError,
  type ClipClientOptions, type RetryNotice,
} from 'clipsrv-client';
import {
  after, base64, embed, failure, json, reset, scriptedServer, silence, type ScriptedServer, type Step,
} from './support/scripted-server.ts';

const retry = { baseDelayMs: 1, maxDelayMs: 5 };
const image = Buffer.from('image');

async function against(
  t: TestContext,
  steps: [Step, ...Step[]],
  options: ClipClientOptions = {},
): Promise<{ server: ScriptedServer; client: ClipClient; notices: RetryNotice[] }> {
  const server = await scriptedServer(...steps);
  t.after(() => server.close());
  const notices: RetryNotice[] = [];
  const onRetry = (notice: RetryNotice): void => void notices.push(notice);
  return { server, notices, client: new ClipClient({ baseUrl: server.url, retry, onRetry, ...options }) };
}

test('a request refused with 429 or 503 or reset is sent again until it is answered', async (t) => {
  const steps: [Step, ...Step[]] = [failure(429, 'overloaded'), reset, failure(503, 'starting'), embed];
  const { client, server, notices } = await against(t, steps);
  assert.deepEqual([...(await client.embedImage(image))], [0, 0.5]);
  assert.equal(server.received.length, 4);
  assert.deepEqual(notices.map(({ error }) => error.constructor), [OverloadedError, ClipConnectionError, UnavailableError]);
});

test('no request is sent again before its Retry-After is over', async (t) => {
  const { client, server } = await against(t, [failure(429, 'overloaded', { 'Retry-After': '1' }), embed]);
  await client.embedImage(image);
  const [first, second] = server.received;
  assert.ok((second?.at ?? 0) - (first?.at ?? 0) >= 995, 'sent before the second was over');
});

test('a Retry-After beyond the time allowed is not waited for', async (t) => {
  const { client, server } = await against(t, [failure(503, 'shutting_down', { 'Retry-After': '3600' })]);
  await assert.rejects(client.embedImage(image), { code: 'shutting_down', retryAfterMs: 3_600_000 });
  assert.equal(server.received.length, 1);
});

test('after the last attempt the last error is thrown', async (t) => {
  const { client, server } = await against(t, [failure(429, 'overloaded')], { retry: { ...retry, maxAttempts: 3 } });
  await assert.rejects(client.embedImage(image), OverloadedError);
  assert.equal(server.received.length, 3);
});

test('every error of the request itself is thrown as its own class and never sent twice', async (t) => {
  const cases = [
    [400, 'missing_image', InvalidRequestError], [401, 'unauthorized', UnauthorizedError],
    [403, 'host_forbidden', UnauthorizedError], [404, 'not_found', InvalidRequestError],
    [408, 'request_timeout', DeadlineError], [413, 'body_too_large', TooLargeError],
    [415, 'unsupported_media_type', InvalidRequestError], [422, 'not_an_image', ImageError],
    [500, 'internal', InternalServerError], [504, 'deadline_exceeded', DeadlineError],
  ] as const;
  for (const [status, code, Class] of cases) {
    const { client, server } = await against(t, [failure(status, code)]);
    await assert.rejects(client.embedImage(image), (error: unknown) => {
      assert.ok(error instanceof Class, `${status} became ${String(error)}`);
      assert.deepEqual(
        [error.code, error.status, error.requestId, error.details, error.message, error.name],
        [code, status, 'r-1', { told: true }, `scripted ${code}`, Class.name],
      );
      return true;
    });
    assert.equal(server.received.length, 1, `${status} was sent again`);
  }
});

test('an error page of a proxy still becomes an error with its status', async (t) => {
  const page: Step = (_request, response) => response.writeHead(502, { 'Content-Type': 'text/html' }).end('<h1>Bad Gateway</h1>');
  const { client, server } = await against(t, [page], { retry: { ...retry, maxAttempts: 2 } });
  await assert.rejects(client.embedImage(image), { code: 'http_502', status: 502, message: '502 <h1>Bad Gateway</h1>' });
  assert.equal(server.received.length, 2);
});

test('an answer that is not clipsrv\'s is refused, not returned', async (t) => {
  const answers: Step[] = [
    (_request, response) => response.end('<html>'),
    json(200, {}),
    json(200, { embedding: [1, 2], dimensions: 2 }),
    json(200, { embedding: base64([1, 2, 3]), dimensions: 2 }),
  ];
  for (const answer of answers) {
    const { client } = await against(t, [answer]);
    await assert.rejects(client.embedImage(image), ClipProtocolError);
  }
  const { client } = await against(t, [json(200, { embeddings: [base64([1, 2])], dimensions: 2 })]);
  await assert.rejects(client.embedImages([image, image]), ClipProtocolError);
  await assert.rejects(client.classify(image, ['a']), ClipProtocolError);
});

test('a server that falls silent costs the time limit, and an attempt', async (t) => {
  const { client, server } = await against(t, [silence, embed], { timeoutMs: 100 });
  await client.embedImage(image);
  assert.equal(server.received.length, 2);
  const patient = await against(t, [silence], { timeoutMs: 50, retry: { ...retry, maxAttempts: 1 } });
  await assert.rejects(patient.client.embedImage(image), ClipTimeoutError);
});

test('an answer cut off in the middle is asked for again', async (t) => {
  const cut: Step = (_request, response) => {
    response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': '1000' });
    response.write('{"embedding":', () => response.socket?.resetAndDestroy());
  };
  const { client, server } = await against(t, [cut, embed]);
  await client.embedImage(image);
  assert.equal(server.received.length, 2);
});

test('a server that is not there is waited for while the policy allows', async () => {
  const placeholder = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => placeholder.once('listening', resolve));
  const { port } = placeholder.address() as { port: number };
  await new Promise((resolve) => placeholder.close(resolve));
  const client = new ClipClient({ baseUrl: `http://127.0.0.1:${port}`, retry: { ...retry, maxAttempts: 4 } });
  await assert.rejects(client.embedImage(image), { name: 'ClipConnectionError', code: 'ECONNREFUSED' });
  await assert.rejects(client.waitUntilReady(300), ClipConnectionError);
});

test('abort ends a request, a wait for another attempt, and a stream', async (t) => {
  const reason = new Error('user left');
  for (const step of [silence, failure(429, 'overloaded', { 'Retry-After': '60' })]) {
    const { client } = await against(t, [step]);
    const signal = AbortSignal.timeout(50);
    await assert.rejects(client.embedImage(image, { signal }), { name: 'TimeoutError' });
    await assert.rejects(client.embedImages([image], { signal: AbortSignal.abort(reason) }), reason);
  }
  const { client } = await against(t, [silence], { maxImagesPerRequest: 1 });
  const controller = new AbortController();
  setTimeout(() => controller.abort(reason), 20);
  await assert.rejects(client.embedImages([image, image, image], { signal: controller.signal }), reason);
});

test('no more requests are under way than the client allows', async (t) => {
  const { client, server } = await against(t, [after(10, embed)], { concurrency: 3, maxImagesPerRequest: 1 });
  await Promise.all(Array.from({ length: 20 }, () => client.embedImages([image, image])));
  assert.equal(server.received.length, 40);
  assert.equal(server.peak(), 3);
});

test('images are split by count and by bytes and come back in order', async (t) => {
  const { client, server } = await against(t, [embed], { maxImagesPerRequest: 10, maxBytesPerRequest: 20_000, concurrency: 1 });
  const images = Array.from({ length: 35 }, (_, i) => Buffer.alloc(i < 10 ? 10 : 4000));
  const vectors = await client.embedImages(images);
  assert.deepEqual(server.received.map((request) => request.images), [10, 4, 4, 4, 4, 4, 4, 1]);
  assert.deepEqual(vectors.map(([place]) => place), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...Array.from({ length: 25 }, (_, i) => i % 4)]);
  assert.deepEqual(await client.embedImages([]), []);
});

test('a request the server finds too large or too slow is halved until it fits', async (t) => {
  for (const refusal of [failure(413, 'too_many_images'), failure(504, 'deadline_exceeded')]) {
    const step: Step = (request, response) => (request.images > 3 ? refusal : embed)(request, response);
    const { client, server } = await against(t, [step]);
    assert.equal((await client.embedImages(Array.from({ length: 10 }, () => image))).length, 10);
    assert.deepEqual(server.received.map((request) => request.images), [10, 5, 3, 2, 5, 3, 2]);
  }
});

test('a single image too large for the server is that image\'s own failure', async (t) => {
  const step: Step = (request, response) =>
    (request.body.length > 5000 ? failure(413, 'body_too_large') : embed)(request, response);
  const { client } = await against(t, [step]);
  const results = await client.embedImagesSettled([image, Buffer.alloc(9000), image]);
  assert.deepEqual(results.map((result) => result.ok), [true, false, true]);
});

test('bad images are reported at their own places, or all together', async (t) => {
  const step: Step = (request, response) => {
    const bad = [1, 3].filter((index) => index < request.images);
    const embeddings = Array.from({ length: request.images }, (_, i) => (bad.includes(i) ? null : base64([i, 0.5])));
    const errors = bad.map((index) => ({ index, code: 'not_an_image', message: `number ${index} is no image` }));
    json(200, { embeddings, count: embeddings.length, dimensions: 2, model: 'scripted', errors })(request, response);
  };
  const { client, server } = await against(t, [step], { maxImagesPerRequest: 4 });
  const images = Array.from({ length: 6 }, () => image);
  const results = await client.embedImagesSettled(images);
  assert.deepEqual(results.map((result) => result.ok), [true, false, true, false, true, false]);
  assert.ok(server.received.every((request) => request.url.includes('on_error=null')));
  await assert.rejects(client.embedImages(images), (error: unknown) => {
    assert.ok(error instanceof BadImagesError);
    assert.deepEqual(error.failures.map((failed) => failed.index), [1, 3, 5]);
    assert.match(error.message, /^3 of the images .* image 1: number 1 is no image; image 3/);
    assert.ok(error.failures.every((failed) => failed.error instanceof ImageError));
    return true;
  });
});

test('a stream reads no further ahead than it may, and an unreadable item is its own failure', async (t) => {
  const { client } = await against(t, [embed], { maxImagesPerRequest: 5, concurrency: 2 });
  let read = 0;
  let yielded = 0;
  let ahead = 0;
  function* items(): Generator<number> {
    for (; read < 200; read++) yield read;
  }
  const load = (item: number): Buffer => {
    if (item % 50 === 7) throw new Error(`cannot read ${item}`);
    return image;
  };
  const failed: number[] = [];
  for await (const result of client.embedStream(items(), load)) {
    ahead = Math.max(ahead, read - yielded);
    assert.equal(result.item, yielded++);
    if (!result.ok) failed.push(result.item);
    else assert.equal(result.embeddingId, 'scripted-1');
  }
  assert.deepEqual(failed, [7, 57, 107, 157]);
  assert.ok(ahead <= 3 * 5 + 8, `${ahead} images ahead`);
});

test('the API key is sent as a bearer token, and only if there is one', async (t) => {
  const { client, server } = await against(t, [embed], { apiKey: 'k-123' });
  await client.embedImage(image);
  assert.equal(server.received[0]?.headers.authorization, 'Bearer k-123');
  const without = await against(t, [embed]);
  await without.client.embedImage(image);
  assert.equal(without.server.received[0]?.headers.authorization, undefined);
});

test('health is told also while the server starts, and readiness is waited for', async (t) => {
  const starting = json(503, { status: 'starting', model: 'm', device: 'cpu', dimensions: 2 });
  const healthy = json(200, { status: 'healthy', model: 'm', device: 'cpu', dimensions: 2 });
  const { client, server } = await against(t, [starting, starting, healthy]);
  assert.equal((await client.health()).status, 'starting');
  assert.equal((await client.waitUntilReady(5000)).status, 'healthy');
  assert.equal(server.received.length, 3);
  const never = await against(t, [starting]);
  await assert.rejects(never.client.waitUntilReady(1), { name: 'UnavailableError', code: 'starting' });
});

test('options that cannot be meant are refused when the client is built', () => {
  assert.throws(() => new ClipClient({ baseUrl: 'localhost:5000' }), TypeError);
  assert.throws(() => new ClipClient({ concurrency: 0 }), RangeError);
  assert.throws(() => new ClipClient({ timeoutMs: Number.NaN }), RangeError);
  assert.equal(new ClipClient({ baseUrl: 'http://127.0.0.1:5000//' }).baseUrl, 'http://127.0.0.1:5000');
});
