/** Images as pixels: what is the same in another file, a small copy to look at, a copy as people make them. Knows no database. */
import { createHash } from 'node:crypto';
import type { Sharp } from 'sharp';
import { EntryError, RefusedError } from '../errors.ts';

/** Decoded, four bytes each: a quarter of a gigabyte. */
const MOST_PIXELS = 64_000_000;
const RIM = 0.01;
const SMALL = 160;

/** Of the pixels as they are seen: upright, in sRGB, with the size. Throws EntryError for what cannot be decoded. */
export async function pixelDigest(bytes: Uint8Array): Promise<string> {
  const { data, info } = await decoded(bytes, (image) => image.toColourspace('srgb').ensureAlpha().raw().toBuffer({ resolveWithObject: true }));
  return createHash('sha256').update(`${info.width} ${info.height} `).update(data).digest('hex');
}

/** At most 160 pixels on the longer side, as a data: URL. Throws EntryError. */
export async function smallCopy(bytes: Uint8Array): Promise<string> {
  const size = { width: SMALL, height: SMALL, fit: 'inside', withoutEnlargement: true } as const;
  return `data:image/webp;base64,${(await decoded(bytes, (image) => image.resize(size).webp({ quality: 80 }).toBuffer())).toString('base64')}`;
}

/** Without a hundredth of its sides all around, saved as a JPEG of quality 75. Throws EntryError. */
export function likelyCopy(bytes: Uint8Array): Promise<Buffer> {
  return decoded(bytes, async (image) => {
    const { data, info } = await image.removeAlpha().raw().toBuffer({ resolveWithObject: true });
    const [left, top] = [info.width, info.height].map((side) => (side < 3 ? 0 : Math.max(1, Math.round(side * RIM)))) as [number, number];
    const { default: sharp } = await library();
    return sharp(data, { raw: { width: info.width, height: info.height, channels: info.channels as 1 | 3 } })
      .extract({ left, top, width: info.width - 2 * left, height: info.height - 2 * top }).jpeg({ quality: 75 }).toBuffer();
  });
}

async function decoded<T>(bytes: Uint8Array, use: (image: Sharp) => Promise<T>): Promise<T> {
  const { default: sharp } = await library();
  try {
    return await use(sharp(bytes, { limitInputPixels: MOST_PIXELS }).autoOrient());
  } catch (error) {
    throw new EntryError('not_decoded', `not decoded here: ${(error as Error).message.trim()}`);
  }
}

async function library(): Promise<typeof import('sharp')> {
  try {
    return await import('sharp');
  } catch (error) {
    throw new RefusedError(`The package sharp, which decodes images, cannot be used here: ${(error as Error).message}`);
  }
}
