/** Two shapes of async iteration with bounded memory. They know nothing of images. */
import { followAbort } from './abort.js';

/**
 * Calls `transform` on up to `limit` items at once and yields the results in the order of the items. Reads the source
 * no further ahead than that. When one call fails, the consumer stops early, or `signal` is aborted, the signal given to
 * the other calls is aborted, and the source is closed once they have ended.
 */
export async function* mapOrdered<T, R>(
  source: Iterable<T> | AsyncIterable<T>,
  limit: number,
  transform: (item: T, signal: AbortSignal) => Promise<R>,
  signal?: AbortSignal,
): AsyncGenerator<R> {
  const running: Promise<R>[] = [];
  const controller = new AbortController();
  signal?.throwIfAborted();
  const letGo = followAbort(signal, controller);
  try {
    for await (const item of source) {
      signal?.throwIfAborted();
      const result = transform(item, controller.signal);
      // Awaited in order further down; until then a rejection must not count as unhandled.
      result.catch(() => undefined);
      running.push(result);
      if (running.length >= limit) yield await (running.shift() as Promise<R>);
    }
    while (running.length > 0) yield await (running.shift() as Promise<R>);
  } finally {
    letGo();
    controller.abort();
    await Promise.allSettled(running);
  }
}

/** Groups of at most `maxCount` items and `maxSize` together; an item larger than that is a group of its own. */
export async function* group<T>(
  source: Iterable<T> | AsyncIterable<T>,
  maxCount: number,
  maxSize: number,
  sizeOf: (item: T) => number,
): AsyncGenerator<T[]> {
  let items: T[] = [];
  let size = 0;
  for await (const item of source) {
    const itemSize = sizeOf(item);
    if (items.length >= maxCount || (items.length > 0 && size + itemSize > maxSize)) {
      yield items;
      items = [];
      size = 0;
    }
    items.push(item);
    size += itemSize;
  }
  if (items.length > 0) yield items;
}
