/** Small PNG images made from a number: the same number, the same bytes; another number, other bytes. */
import { deflateSync } from 'node:zlib';

const CRC_TABLE = Int32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});

function crc32(bytes: Uint8Array): number {
  let crc = -1;
  for (const byte of bytes) crc = (CRC_TABLE[(crc ^ byte) & 255] ?? 0) ^ (crc >>> 8);
  return (crc ^ -1) >>> 0;
}

function chunk(type: string, data: Uint8Array): Buffer {
  const body = Buffer.concat([Buffer.from(type), data]);
  const framed = Buffer.alloc(body.length + 8);
  framed.writeUInt32BE(data.length, 0);
  body.copy(framed, 4);
  framed.writeUInt32BE(crc32(body), body.length + 4);
  return framed;
}

/** MurmurHash3's finaliser: every bit of the result depends on every bit of `value`. */
function mix(value: number): number {
  let h = value + 0x9e3779b9;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** A coloured gradient with a block whose place and colour depend on `seed`; 8-bit RGB. */
export function image(seed: number, width = 32, height = 24): Buffer {
  const random = (n: number): number => mix(mix(seed) + n);
  const base = [random(1) & 255, random(2) & 255, random(3) & 255];
  const block = [random(4) & 255, random(5) & 255, random(6) & 255];
  const [left, top] = [random(7) % width, random(8) % height];
  const rows = Buffer.alloc(height * (width * 3 + 1));
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const inside = x >= left && x < left + width / 3 && y >= top && y < top + height / 3;
      for (let c = 0; c < 3; c++) {
        const value = inside ? (block[c] ?? 0) : (base[c] ?? 0) + ((x * 3 + y * 2 * (c + 1)) >> 1);
        rows[y * (width * 3 + 1) + 1 + x * 3 + c] = value & 255;
      }
    }
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const signature = Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]);
  return Buffer.concat([signature, chunk('IHDR', header), chunk('IDAT', deflateSync(rows)), chunk('IEND', Buffer.alloc(0))]);
}
