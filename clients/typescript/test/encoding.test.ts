import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runInNewContext } from 'node:vm';
import { Blob as ForeignBlob } from 'node-fetch';
import { decodeVector, encodeMultipart, toBytes, toNumbers } from '../src/encoding.ts';

test('a vector is decoded from little-endian float32, and any other length is refused', () => {
  const bytes = Buffer.from([0x00, 0x00, 0x80, 0x3f, 0x00, 0x00, 0x00, 0xbf]);
  assert.deepEqual([...decodeVector(bytes.toString('base64'), 2)], [1, -0.5]);
  assert.throws(() => decodeVector(bytes.toString('base64'), 3), RangeError);
  assert.throws(() => decodeVector('', 1), RangeError);
});

test('a multipart body is what another parser reads back, byte for byte', async () => {
  const images = [Buffer.from([0, 13, 10, 45, 45, 255]), Buffer.alloc(0), Buffer.from('--boundary\r\n')];
  const { body, contentType } = encodeMultipart('images', images);
  const parsed = await new Response(body, { headers: { 'Content-Type': contentType } }).formData();
  const parts = parsed.getAll('images') as unknown as Blob[];
  assert.equal(parts.length, images.length);
  for (const [i, part] of parts.entries()) assert.deepEqual(Buffer.from(await part.arrayBuffer()), images[i]);
});

test('an image is taken from whatever holds its bytes', async () => {
  const expected = new Uint8Array([1, 2, 3]);
  const padded = new Uint8Array([9, 1, 2, 3, 9]).buffer;
  const shared = new Uint8Array(new SharedArrayBuffer(3));
  shared.set(expected);
  const foreign = runInNewContext('({ array: new Uint8Array([1, 2, 3]), buffer: new Uint8Array([1, 2, 3]).buffer })') as {
    array: Uint8Array;
    buffer: ArrayBuffer;
  };
  const forms = {
    Buffer: Buffer.from(expected), ArrayBuffer: expected.buffer, Blob: new Blob([expected]), File: new File([expected], 'a'),
    DataView: new DataView(padded, 1, 3), Uint8ClampedArray: new Uint8ClampedArray(padded, 1, 3), Int8Array: new Int8Array(padded, 1, 3),
    SharedArrayBuffer: shared.buffer, 'a view of shared memory': shared, 'another realm\'s array': foreign.array,
    'another realm\'s buffer': foreign.buffer, 'node-fetch\'s Blob': new ForeignBlob([expected]),
    'a Blob that is only alike': { arrayBuffer: async () => expected }, 'a Response': new Response(expected),
  };
  for (const [name, form] of Object.entries(forms)) assert.deepEqual(new Uint8Array(await toBytes(form)), expected, name);
});

test('memory that was given away, and a Response that failed, are no empty images', async () => {
  const gone = new Uint8Array([1, 2, 3]);
  structuredClone(gone, { transfer: [gone.buffer] });
  await assert.rejects(toBytes(gone), TypeError);
  await assert.rejects(toBytes(gone.buffer), TypeError);
  await assert.rejects(toBytes(new Response('no such page', { status: 404 })), /Response that failed/);
  await assert.rejects(toBytes({ arrayBuffer: async () => 'text' as unknown as ArrayBuffer }), /gave a string/);
});

test('plain numbers are the shortest decimals of the same float32', () => {
  assert.deepEqual(toNumbers(new Float32Array([0.123, -0.456, 1, 0, 1e-8])), [0.123, -0.456, 1, 0, 1e-8]);
  const bits = new Uint32Array(1);
  const value = new Float32Array(bits.buffer);
  for (let i = 0; i < 20_000; i++) {
    bits[0] = (Math.imul(i, 2654435761) & 0x007fffff) | (((100 + (i % 28)) << 23) >>> 0);
    const [number] = toNumbers(value);
    assert.equal(Math.fround(number ?? Number.NaN), value[0]);
  }
});
