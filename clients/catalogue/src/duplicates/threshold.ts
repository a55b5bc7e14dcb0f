/** How near is near: measured with copies of the catalogue's own images. */
import type { ClipClient } from 'clipsrv-client';
import { EntryError, RefusedError } from '../errors.ts';
import { loadImage, sha256 } from '../load.ts';
import type { Gallery, Member } from './neighbours.ts';
import { likelyCopy } from './pixels.ts';

/** The share of copies that the threshold is to find. */
export const FOUND = 0.9;
const FEWEST = 3;

/** Of images that were copied, saved smaller by a hundredth as JPEG and embedded: how far each copy is from its original, ascending. */
export interface Copies {
  readonly distances: Float64Array;
}

/** Throws RefusedError if hardly an image of the sample can be read: then nobody knows what is near. */
export async function measureCopies(gallery: Gallery, client: ClipClient, images: number, base: string, signal: AbortSignal): Promise<Copies> {
  const sample = await gallery.sample(images);
  const [distances, problems]: [number[], string[]] = [[], []];
  const copy = async (member: Member): Promise<Uint8Array> => likelyCopy(await readMember(member, base, signal));
  for await (const result of client.embedStream(sample, copy, { signal })) {
    if (!result.ok) {
      if (result.error instanceof RefusedError) throw result.error;
      problems.push(result.error.message);
    } else if (result.embeddingId !== gallery.embeddingId) throw new RefusedError('The server changed its model on the way.');
    else distances.push(cosineDistance(result.item.vector, result.embedding));
  }
  if (distances.length < Math.min(FEWEST, sample.length)) {
    throw new RefusedError(
      `Of ${sample.length} images of the sample ${distances.length} could be read: ${problems[0]}. ` +
        'Say where they are with --base, or how far apart duplicates may be with --threshold.',
    );
  }
  return { distances: Float64Array.from(distances).sort() };
}

/** The bytes of a row's image. Throws EntryError if they cannot be read, or are others than were embedded. */
export async function readMember({ location, sha256: wanted }: Member, base: string, signal: AbortSignal): Promise<Uint8Array> {
  const bytes = await loadImage(location, base, signal);
  if (/^[0-9a-f]{64}$/.test(wanted) && sha256(bytes) !== wanted) throw new EntryError('image_changed', `${location}: the image there is not the one that was embedded`);
  return bytes;
}

/** The value below which the share `part` of `ascending` lies; NaN of nothing. */
export const quantile = (ascending: Float64Array, part: number): number => ascending[Math.max(0, Math.ceil(ascending.length * part) - 1)] ?? NaN;

/**
 * The distance within which nine of ten copies lie, and why, in lines for people. Never more than a quarter of the usual distance to the
 * tenth neighbour: where copies are as far away as other images are, a distance cannot tell them apart.
 */
export function thresholdOf(copies: Copies, tenth: Float64Array): { readonly distance: number; readonly lines: readonly string[] } {
  const [limit, usual] = [limitOf(copies), quantile(tenth, 0.5)];
  const why = `nine of ten copies are within ${limit.toFixed(4)} of their originals: ${copies.distances.length} of these images, saved as JPEGs without a hundredth of their rim`;
  const isCapped = usual / 4 < limit;
  const distance = isCapped ? usual / 4 : limit;
  const near = `near: at most ${distance.toFixed(4)} apart (cosine distance)`;
  return { distance, lines: [near, why, ...(isCapped ? ['that is cut to a quarter of the usual distance between an image and its tenth neighbour'] : [])] };
}

/** No threshold of these copies is larger. */
export const limitOf = ({ distances }: Copies): number => quantile(distances, FOUND);

function cosineDistance(one: readonly number[], other: Float32Array): number {
  let [dot, a, b] = [0, 0, 0];
  for (const [i, x] of one.entries()) {
    const y = other[i] ?? 0;
    dot += x * y;
    a += x * x;
    b += y * y;
  }
  return 1 - dot / Math.sqrt(a * b);
}
