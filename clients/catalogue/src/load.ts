/** The bytes behind a location: a file or an http(s) URL. Knows nothing of catalogues or vectors. */
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { followAbort, withRetry } from 'clipsrv-client';
import { EntryError } from './errors.ts';

export const MAX_IMAGE_BYTES = 64 * 1024 * 1024;
const FILE_CHUNK_BYTES = 1024 * 1024;
const DOWNLOAD_TIMEOUT_MS = 30_000;
const DOWNLOAD_RETRY = { maxAttempts: 3, baseDelayMs: 500, maxDelayMs: 5000, maxElapsedMs: 90_000 };

export const isUrl = (location: string): boolean => /^https?:\/\//i.test(location);

export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Throws EntryError with the reason; rejects with the signal's reason when it is aborted. */
export async function loadImage(location: string, base: string, signal: AbortSignal): Promise<Uint8Array> {
  if (!isUrl(location)) return loadFile(location.startsWith('file:') ? fileURLToPath(location) : path.resolve(base, location));
  const worthRetrying = (error: unknown): boolean => error instanceof EntryError && error.code === 'download_failed';
  try {
    return await withRetry(() => download(location, signal), { policy: DOWNLOAD_RETRY, signal, worthRetrying });
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  }
}

async function loadFile(file: string): Promise<Uint8Array> {
  try {
    // Without O_NONBLOCK opening a named pipe waits for its writer for ever, and so does the end of the process.
    const handle = await open(file, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
    try {
      const found = await handle.stat();
      if (!found.isFile()) throw new EntryError('file_unreadable', `${file}: it is not a regular file`);
      if (found.size > MAX_IMAGE_BYTES) throw tooLarge(found.size);
      return await collect(handle.createReadStream({ autoClose: false, highWaterMark: FILE_CHUNK_BYTES }));
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (error instanceof EntryError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    throw new EntryError(code === 'ENOENT' ? 'file_missing' : 'file_unreadable', `${file}: ${code ?? String(error)}`);
  }
}

async function download(url: string, signal: AbortSignal): Promise<Uint8Array> {
  const controller = new AbortController();
  const letGo = followAbort(signal, controller);
  const timer = setTimeout(() => controller.abort(new Error(`no answer within ${DOWNLOAD_TIMEOUT_MS / 1000} s`)), DOWNLOAD_TIMEOUT_MS);
  try {
    const response = await fetch(url, { signal: controller.signal });
    if (!response.ok) {
      await response.body?.cancel();
      const again = response.status === 429 || response.status >= 500;
      throw new EntryError(again ? 'download_failed' : 'download_refused', `${url}: status ${response.status}`);
    }
    return await collect((response.body ?? []) as AsyncIterable<Uint8Array>);
  } catch (error) {
    if (error instanceof EntryError) throw error;
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    throw new EntryError('download_failed', `${url}: ${cause instanceof Error ? cause.message : String(cause)}`);
  } finally {
    clearTimeout(timer);
    letGo();
  }
}

/** All of it, counted as it comes: neither a file nor a server need have said how much there is. */
async function collect(stream: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of stream) {
    size += chunk.byteLength;
    if (size > MAX_IMAGE_BYTES) throw tooLarge(size);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function tooLarge(size: number): EntryError {
  return new EntryError('file_too_large', `${size} bytes or more; at most ${MAX_IMAGE_BYTES} are read`);
}
