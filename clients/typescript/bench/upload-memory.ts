/**
 * What uploading costs in memory: the same images through the platform's FormData of Blobs, and through one buffer as
 * the client does. Node's resident memory at the start, the middle, the end and at most. Run each way by itself:
 *
 *   npx tsx clients/typescript/bench/upload-memory.ts blob|buffer [REQUESTS] [IMAGE_BYTES]
 */
import { randomBytes } from 'node:crypto';
import { Worker } from 'node:worker_threads';
import { encodeMultipart } from '../src/encoding.ts';

const IMAGES = 32;
/** In a thread of its own, so that it does not slow the client; its memory is in the figure both ways. */
const SERVER = `
  const server = require('node:http').createServer((request, response) => request.resume().on('end', () => response.end('{}')));
  server.listen(0, '127.0.0.1', () => require('node:worker_threads').parentPort.postMessage(server.address().port));
`;

const way = process.argv[2] ?? 'buffer';
const requests = Number(process.argv[3] ?? 625);
const size = Number(process.argv[4] ?? 100_000);
const worker = new Worker(SERVER, { eval: true });
const port = await new Promise<number>((resolve) => worker.once('message', resolve));
const megabytes = (): number => Math.round(process.memoryUsage().rss / 2 ** 20);
const samples = [megabytes()];
for (let i = 0; i < requests; i++) {
  const images = Array.from({ length: IMAGES }, () => randomBytes(size));
  let init: RequestInit;
  if (way === 'blob') {
    const body = new FormData();
    images.forEach((image, k) => body.append('images', new Blob([image]), `image${k}`));
    init = { body };
  } else {
    const { body, contentType } = encodeMultipart('images', images);
    init = { body, headers: { 'Content-Type': contentType } };
  }
  await (await fetch(`http://127.0.0.1:${port}/`, { method: 'POST', ...init })).text();
  samples.push(megabytes());
}
const at = (part: number): number => samples[Math.floor((samples.length - 1) * part)] ?? 0;
console.log(
  `${way}: ${requests * IMAGES} images of ${size} bytes: RSS ${at(0)} MB at the start, ${at(0.25)}, ${at(0.5)}, ${at(0.75)}, ` +
    `${at(1)} at the end, ${Math.max(...samples)} at most`,
);
await worker.terminate();
