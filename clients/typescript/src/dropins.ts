/**
 * The two helpers of the self-hosting guide, name for name, over one shared client that is configured by the environment
 * (CLIP_SERVER_URL, CLIP_API_KEY).
 */
import { ClipClient } from './client.js';
import { toNumbers } from './encoding.js';

let shared: ClipClient | undefined;

function client(): ClipClient {
  shared ??= new ClipClient();
  return shared;
}

/** The unit-length vector of one image. Throws a ClipError. */
export async function generateEmbeddingLocal(imageBuffer: Buffer): Promise<number[]> {
  return toNumbers(await client().embedImage(imageBuffer));
}

/** One vector for each image, in order, whatever their number. Throws BadImagesError if any image is bad. */
export async function generateEmbeddingsBatch(imageBuffers: Buffer[]): Promise<number[][]> {
  return (await client().embedImages(imageBuffers)).map(toNumbers);
}
