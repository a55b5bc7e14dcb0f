/** Bytes on the wire: multipart bodies going out, base64 vectors coming in. Knows nothing of requests. */
import { randomUUID } from 'node:crypto';
import { endianness } from 'node:os';

/** An encoded image (JPEG, PNG, WebP, ...), exactly as it lies on disk. */
export type ImageBytes = Uint8Array | ArrayBuffer | Blob;

export async function toBytes(image: ImageBytes): Promise<Uint8Array> {
  if (image instanceof Uint8Array) return image;
  return new Uint8Array(image instanceof Blob ? await image.arrayBuffer() : image);
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
): { readonly body: Uint8Array<ArrayBuffer>; readonly contentType: string } {
  const boundary = `clipsrv-${randomUUID()}`;
  const parts: Uint8Array[] = [];
  images.forEach((image, i) => {
    const head =
      `--${boundary}\r\nContent-Disposition: form-data; name="${field}"; filename="image${i}"\r\n` +
      'Content-Type: application/octet-stream\r\n\r\n';
    parts.push(Buffer.from(head), image, Buffer.from('\r\n'));
  });
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
