import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { test } from 'node:test';
import { group, mapOrdered } from '../src/streams.ts';

async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of source) items.push(item);
  return items;
}

test('groups are closed by count and by size, and an item over the size travels alone', async () => {
  const sizes = [1, 1, 1, 1, 9, 1, 50, 1, 5, 5];
  const groups = await collect(group(sizes, 3, 10, (size) => size));
  assert.deepEqual(groups, [[1, 1, 1], [1, 9], [1], [50], [1, 5], [5]]);
  assert.deepEqual(await collect(group([], 3, 10, () => 1)), []);
});

test('results keep the order of the items although the calls end in another', async () => {
  const items = Array.from({ length: 40 }, (_, i) => i);
  const results = await collect(mapOrdered(items, 5, async (i) => (await delay((i * 7) % 11), i)));
  assert.deepEqual(results, items);
});

test('the source is read no further ahead than the limit', async () => {
  let read = 0;
  let done = 0;
  let ahead = 0;
  function* source(): Generator<number> {
    for (; read < 100; read++) yield read;
  }
  const results = mapOrdered(source(), 4, async (i) => {
    await delay(1);
    ahead = Math.max(ahead, read - done);
    return i;
  });
  for await (const _ of results) done++;
  assert.equal(done, 100);
  assert.ok(ahead <= 4, `${ahead} ahead`);
});

test('a failing call aborts the others and closes the source', async () => {
  let closed = false;
  let aborted = 0;
  function* source(): Generator<number> {
    try {
      for (let i = 0; ; i++) yield i;
    } finally {
      closed = true;
    }
  }
  const call = async (i: number, signal: AbortSignal): Promise<number> => {
    if (i === 0) throw new Error('first');
    await delay(60_000, undefined, { signal }).catch((error: unknown) => {
      aborted++;
      throw error;
    });
    return i;
  };
  await assert.rejects(collect(mapOrdered(source(), 3, call)), /first/);
  assert.deepEqual({ closed, aborted }, { closed: true, aborted: 2 });
});

test('an aborted signal reaches calls under way and ends the iteration', async () => {
  const controller = new AbortController();
  const reason = new Error('stop');
  const call = (_: number, signal: AbortSignal): Promise<never> =>
    new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
  setTimeout(() => controller.abort(reason), 5);
  await assert.rejects(collect(mapOrdered([1, 2, 3], 2, call, controller.signal)), reason);
});
