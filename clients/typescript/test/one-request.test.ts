/** embedStream over one request: against the real server, and against one that breaks off on cue. */
import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import {
  ClipClient, ClipProtocolError, ClipTimeoutError, ImageError, UnauthorizedError,
  type ClipClientOptions, type RetryNotice, type StreamResult,
} from 'clipsrv-client';
import { image } from './support/images.ts';
import { base64, scriptedServer, embed, failure } from './support/scripted-server.ts';
import { ClipServer } from './support/server.ts';

const oneRequest = { oneRequest: true };
const retry = { baseDelayMs: 1, maxDelayMs: 5 };
let server: ClipServer;
let client: ClipClient;

before(async () => {
  server = await ClipServer.start('--max-images-streamed', '250');
  client = new ClipClient({ baseUrl: server.url });
});
after(() => server.stop());

async function collect<T>(results: AsyncIterable<StreamResult<T>>): Promise<StreamResult<T>[]> {
  const found: StreamResult<T>[] = [];
  for await (const result of results) found.push(result);
  return found;
}

const distance = (a: Float32Array, b: Float32Array): number => Math.max(...a.map((value, i) => Math.abs(value - (b[i] ?? NaN))));
const seeds = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

test('over one request every item has its own vector or error, in order, as over many', async () => {
  const read = (seed: number): Buffer => {
    if (seed === 5) throw new Error('unreadable');
    return seed === 30 ? Buffer.from('no image') : image(seed);
  };
  const results = await collect(client.embedStream(seeds(60), read, oneRequest));
  const expected = await collect(client.embedStream(seeds(60), read));
  assert.deepEqual(results.map(({ item }) => item), seeds(60));
  for (const [place, result] of results.entries()) {
    const other = expected[place];
    assert.ok(other !== undefined);
    assert.equal(result.ok, other.ok);
    if (result.ok && other.ok) {
      assert.ok(distance(result.embedding, other.embedding) < 1e-6);
      assert.equal(result.embeddingId, other.embeddingId);
    }
  }
  const [unreadable, bad] = [results[5], results[30]];
  assert.ok(unreadable?.ok === false && unreadable.error.message === 'unreadable');
  assert.ok(bad?.ok === false && bad.error instanceof ImageError && bad.error.code === 'not_an_image');
});

test('more images than the server takes in one request go on in the next', async () => {
  const results = await collect(client.embedStream(seeds(600), () => image(1), oneRequest));
  assert.equal(results.filter(({ ok }) => ok).length, 600);
});

test('the source is read no further ahead than a few requests of many would hold, while nobody takes results', async () => {
  const few = new ClipClient({ baseUrl: server.url, concurrency: 2, maxImagesPerRequest: 8 });
  let read = 0;
  const results = few.embedStream(seeds(500), (seed) => (read++, image(seed % 20)), oneRequest);
  assert.equal((await results.next()).value?.ok, true);
  await delay(300);
  assert.ok(read <= 16 + 8 + 1, `${read} were read`);
  await delay(2500); // longer than a request is kept open for
  assert.equal((await collect(results)).length, 499);
});

test('a source that pauses costs nobody an image', async () => {
  async function* slow(): AsyncGenerator<number> {
    yield* [1, 2];
    await delay(2500);
    yield 3;
  }
  const began = performance.now();
  const arrived: number[] = [];
  for await (const result of client.embedStream(slow(), image, oneRequest)) {
    assert.ok(result.ok);
    arrived.push(performance.now() - began);
  }
  assert.equal(arrived.length, 3);
  assert.ok((arrived[1] ?? Infinity) < (arrived[2] ?? 0), 'told of before the pause was over');
});

test('an abort ends the stream, its request and its source', async () => {
  const controller = new AbortController();
  let closed = false;
  async function* endless(): AsyncGenerator<number> {
    try {
      for (let i = 0; ; i++) yield i;
    } finally {
      closed = true;
    }
  }
  const results = client.embedStream(endless(), () => image(1), { ...oneRequest, signal: controller.signal });
  await results.next();
  controller.abort(new Error('enough'));
  await assert.rejects(collect(results), /enough/);
  assert.ok(closed);
  await assert.rejects(collect(client.embedStream([1], image, { ...oneRequest, signal: controller.signal })), /enough/);
});

test('leaving the loop early ends the request, and the client goes on', async () => {
  for await (const result of client.embedStream(seeds(200), image, oneRequest)) {
    if (result.item === 3) break;
  }
  assert.equal((await client.embedImage(image(1))).length, (await client.health()).dimensions);
});

test('an error of the source ends the stream with it', async () => {
  async function* source(): AsyncGenerator<number> {
    yield 1;
    throw new Error('the disk is gone');
  }
  await assert.rejects(collect(client.embedStream(source(), image, oneRequest)), /the disk is gone/);
});

test('nothing to embed asks nothing', async () => {
  const nobody = new ClipClient({ baseUrl: 'http://127.0.0.1:9' });
  assert.deepEqual(await collect(nobody.embedStream([], image, oneRequest)), []);
});

test('a server that is stopped in the middle and started again costs no image', async (t) => {
  const stopped = await ClipServer.start('--grace', '5');
  t.after(() => stopped.stop());
  const notices: RetryNotice[] = [];
  const patient = new ClipClient({ baseUrl: stopped.url, retry: { maxAttempts: 200, maxDelayMs: 300 }, onRetry: (notice) => void notices.push(notice) });
  let told = 0;
  for await (const result of patient.embedStream(seeds(800), (seed) => image(seed % 50), oneRequest)) {
    assert.ok(result.ok);
    assert.equal(result.item, told++);
    if (told === 100) void stopped.stop().then(() => stopped.up());
    if (told === 400) void stopped.kill().then(() => stopped.up());
  }
  assert.equal(told, 800);
  assert.ok(notices.length >= 1);
});

type Script = (request: IncomingMessage, response: ServerResponse, number: number) => void;

/** A server of which `script` answers each request as soon as its head is there. */
async function scripted(t: TestContext, script: Script, options: ClipClientOptions = {}): Promise<{ client: ClipClient; count: () => number }> {
  let count = 0;
  const answering = createServer((request, response) => {
    request.on('error', () => undefined);
    response.on('error', () => undefined);
    script(request, response, count++);
  });
  await new Promise<void>((resolve) => answering.listen(0, '127.0.0.1', resolve));
  t.after(() => (answering.close(), answering.closeAllConnections()));
  const baseUrl = `http://127.0.0.1:${(answering.address() as AddressInfo).port}`;
  return { client: new ClipClient({ baseUrl, retry, ...options }), count: () => count };
}

const head = (response: ServerResponse): void =>
  void response.writeHead(200, { 'Content-Type': 'application/x-ndjson', 'X-Embedding-Id': 'scripted-1' });
const line = (value: unknown): string => `${JSON.stringify(value)}\n`;
const told = (index: number): string => line({ index, embedding: base64([index, 0.5]) });
const last = (count: number): string => line({ done: true, count, failed: 0, dimensions: 2, model: 'scripted' });
const broken = (code: string, status: number): string =>
  line({ done: false, count: 0, failed: 0, dimensions: 2, model: 'm', error: { code, message: code, details: {}, status }, request_id: 'r' });

/** Calls back with the number of images once the whole body has come. */
function whole(request: IncomingMessage, then: (images: number) => void): void {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => then(Buffer.concat(chunks).toString('latin1').split('name="images"').length - 1));
}

test('what a request that broke off had not told of is sent again, whatever broke it', async (t) => {
  for (const end of [
    (response: ServerResponse): void => void response.destroy(),
    (response: ServerResponse): void => void response.end(),
    (response: ServerResponse): void => void response.end(broken('shutting_down', 503)),
    (response: ServerResponse): void => void response.end(broken('request_timeout', 408)),
    (response: ServerResponse): void => void response.end(broken('too_many_images', 413)),
  ]) {
    const { client, count } = await scripted(t, (request, response, number) => {
      whole(request, (images) => {
        head(response);
        if (number > 0) return void response.end(Array.from({ length: images }, (_, i) => told(i)).join('') + last(images));
        response.write(told(2) + told(0));
        setTimeout(() => end(response), 20);
      });
    });
    const results = await collect(client.embedStream(seeds(5), () => Buffer.from('image'), oneRequest));
    // Of the second request, in the order of what was left: 1, 3, 4.
    assert.deepEqual(results.map((result) => (result.ok ? result.embedding[0] : NaN)), [0, 0, 2, 1, 2]);
    assert.equal(count(), 2);
  }
});

test('an image that the server could not do now is sent again, and one that is at fault is not', async (t) => {
  const { client, count } = await scripted(t, (request, response, number) => {
    whole(request, (images) => {
      head(response);
      const failed = (index: number, status: number, code: string): string =>
        line({ index, error: { code, message: code, details: {}, status } });
      if (number === 0) response.end(failed(0, 503, 'inference_failed') + failed(1, 422, 'not_an_image') + told(2) + last(images));
      else response.end(told(0) + last(images));
    });
  });
  const results = await collect(client.embedStream(seeds(3), () => Buffer.from('image'), oneRequest));
  assert.deepEqual(results.map(({ ok }) => ok), [true, false, true]);
  assert.equal(count(), 2);
});

test('an image that never gets done ends the stream with its error', async (t) => {
  const { client, count } = await scripted(
    t,
    (request, response) =>
      whole(request, (images) => {
        head(response);
        response.end(line({ index: 0, error: { code: 'deadline_exceeded', message: 'late', details: {}, status: 504 } }) + last(images));
      }),
    { retry: { ...retry, maxAttempts: 3 } },
  );
  await assert.rejects(collect(client.embedStream([1], () => Buffer.from('image'), oneRequest)), { code: 'deadline_exceeded' });
  assert.equal(count(), 3);
});

test('answers that are no stream of this server are told by what is wrong', async (t) => {
  const cases: [string, RegExp][] = [
    ['{"index": 7, "embedding": "AAAAAA=="}\n', /image 7, which was not sent/],
    ['{"index": "0"}\n', /"index"/],
    ['{"index": 0, "embedding": "AAA="}\n', /damaged/],
    ['{"index": 0}\n', /missing vector 0/],
    ['nonsense\n', /not a JSON object/],
    ['{"done": false}\n', /reason in its last line/],
    [last(1), /has not told of 1 images/],
  ];
  for (const [answer, message] of cases) {
    const { client } = await scripted(t, (request, response) => whole(request, () => (head(response), response.end(answer))));
    const embedding = collect(client.embedStream([1], () => Buffer.from('image'), oneRequest));
    await assert.rejects(embedding, (error) => error instanceof ClipProtocolError && message.test(error.message));
  }
});

test('a server without streams, and one that refuses, are told as ever', async (t) => {
  const old = await scriptedServer(embed);
  t.after(() => old.close());
  const asked = new ClipClient({ baseUrl: old.url, retry }).embedStream([1], () => Buffer.from('image'), oneRequest);
  await assert.rejects(collect(asked), /application\/json in the place of lines/);
  const strict = await scriptedServer(failure(401, 'unauthorized'));
  t.after(() => strict.close());
  const refused = new ClipClient({ baseUrl: strict.url, retry }).embedStream([1], () => Buffer.from('image'), oneRequest);
  await assert.rejects(collect(refused), UnauthorizedError);
  assert.equal(strict.received.length, 1);
});

test('a server that owes a line and says nothing is given up after timeoutMs, and a slow source is not', async (t) => {
  const { client } = await scripted(
    t,
    (request, response) => {
      head(response);
      response.flushHeaders();
      request.resume();
    },
    { timeoutMs: 300, retry: { ...retry, maxAttempts: 1 } },
  );
  await assert.rejects(collect(client.embedStream([1], () => Buffer.from('image'), oneRequest)), ClipTimeoutError);
  async function* slow(): AsyncGenerator<number> {
    await delay(700);
    yield 1;
  }
  const quick = new ClipClient({ baseUrl: server.url, timeoutMs: 30_000 });
  assert.equal((await collect(quick.embedStream(slow(), image, oneRequest))).length, 1);
});
