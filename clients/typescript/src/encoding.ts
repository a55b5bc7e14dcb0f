/** Bytes on the wire: multipart bodies going out, base64 vectors coming in. Knows nothing of requests. */
import { randomUUID } from 'node:crypto';
import { endianness } from 'node:os';
import { types } from 'node:util';

/** An image as it lies on disk (JPEG, PNG, WebP, ...): its bytes, or a Blob of any make, the platform's or a library's. */
export type ImageBytes = ArrayBufferView | ArrayBufferLike | BlobLike;

export interface BlobLike {
  arrayBuffer(): Promise<ArrayBufferView | ArrayBufferLike>;
}

/** Throws TypeError, which says what `image` is instead, unless it is one by its form. `name` is what the caller calls it. */
export function assertImage(image: unknown, name: string): asserts image is ImageBytes {
  if (isBytes(image) || isBlobLike(image)) return;
  const cure =
    typeof image === 'string' ? ': read the file first, await readFile(path)'
    : isStream(image) ? ": collect it first, await buffer(stream) of node:stream/consumers"
    : '';
  throw new TypeError(`${name} is ${described(image)}, not the bytes of an image (Buffer, Uint8Array, ArrayBuffer, Blob)${cure}`);
}

/** The bytes themselves, not a copy where that can be helped. Throws TypeError for what is no image by its form. */
export async function toBytes(image: ImageBytes): Promise<Uint8Array> {
  assertImage(image, 'image');
  if (isBytes(image)) return viewed(image);
  if ('ok' in image && image.ok === false) throw new TypeError('image is a Response that failed, not an image');
  const bytes = await image.arrayBuffer();
  if (!isBytes(bytes)) throw new TypeError(`image.arrayBuffer() gave ${described(bytes)}, not bytes`);
  return viewed(bytes);
}

// By form and not by class: a test runner's or a worker's own classes are others than ours.
const isBytes = (value: unknown): value is ArrayBufferView | ArrayBufferLike => ArrayBuffer.isView(value) || types.isAnyArrayBuffer(value);

const isBlobLike = (value: unknown): value is BlobLike =>
  typeof value === 'object' && value !== null && 'arrayBuffer' in value && typeof value.arrayBuffer === 'function';

const isStream = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && ('pipe' in value || 'getReader' in value || Symbol.asyncIterator in value);

/** Throws TypeError if the memory was given away (transferred), rather than taking it for an empty image. */
const viewed = (bytes: ArrayBufferView | ArrayBufferLike): Uint8Array =>
  ArrayBuffer.isView(bytes) ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength) : new Uint8Array(bytes);

/** "a string", "null", "a ReadStream": what a person would call it. */
export function described(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  const name = typeof value === 'object' ? (value.constructor?.name ?? 'object') : typeof value;
  return `${/^[aeiou]/i.test(name) ? 'an' : 'a'} ${name}`;
}

/** Room for one part's headers and boundary, generously. */
export const PART_OVERHEAD_BYTES = 256;

/**
 * A multipart/form-data body (RFC 7578) in one buffer. The platform's FormData would do, but holds each image once
 * more as a Blob outside the JavaScript heap: bench/upload-memory.ts measures 20 to 40 MB more resident memory.
 */
export function encodeMultipart(
  field: string,
  images: readonly Uint8Array[],
  texts: readonly (readonly [name: string, text: string])[] = [],
): { readonly body: Uint8Array<ArrayBuffer>; readonly contentType: string } {
  const boundary = `clipsrv-${randomUUID()}`;
  const parts: Uint8Array[] = [];
  images.forEach((image, i) => {
    const head =
      `--${boundary}\r\nContent-Disposition: form-data; name="${field}"; filename="image${i}"\r\n` +
      'Content-Type: application/octet-stream\r\n\r\n';
    parts.push(Buffer.from(head), image, Buffer.from('\r\n'));
  });
  for (const [name, text] of texts) {
    parts.push(Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${text}\r\n`));
  }
  parts.push(Buffer.from(`--${boundary}--\r\n`));
  return { body: Buffer.concat(parts), contentType: `multipart/form-data; boundary=${boundary}` };
}

const HOST_IS_BIG_ENDIAN = endianness() === 'BE';

/** A vector of little-endian float32 in base64; throws RangeError unless it holds exactly `dimensions` numbers. */
export function decodeVector(base64: string, dimensions: number): Float32Array<ArrayBuffer> {
  const vector = new Float32Array(dimensions);
  const bytes = Buffer.from(base64, 'base64');
  if (bytes.length !== vector.byteLength) {
    throw new RangeError(`a vector of ${dimensions} float32 is ${vector.byteLength} bytes, received ${bytes.length}`);
  }
  if (HOST_IS_BIG_ENDIAN) bytes.swap32();
  bytes.copy(Buffer.from(vector.buffer));
  return vector;
}

/**
 * The vector as plain numbers: of all decimals that are the same float32, the shortest. That is what the server prints
 * in JSON; `Array.from` would give 0.12300000339746475 for its 0.123.
 */
export function toNumbers(vector: Float32Array): number[] {
  return Array.from(vector, (value) => {
    for (let digits = 6; digits < 9; digits++) {
      const short = Number(value.toPrecision(digits));
      if (Math.fround(short) === value) return short;
    }
    return Number(value.toPrecision(9));
  });
}
