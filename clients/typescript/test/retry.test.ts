import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClipConnectionError, serverError } from '../src/errors.ts';
import { delayBeforeRetry, isTransient, parseRetryAfter, sleep } from '../src/retry.ts';

const policy = { maxAttempts: 6, baseDelayMs: 100, maxDelayMs: 1000, maxElapsedMs: 10_000 };

test('the wait is a random part of a bound that doubles up to the maximum', () => {
  const bounds = [1, 2, 3, 4, 5, 6].map((attempt) => delayBeforeRetry(policy, attempt, undefined, () => 1));
  assert.deepEqual(bounds, [100, 200, 400, 800, 1000, 1000]);
  assert.equal(delayBeforeRetry(policy, 3, undefined, () => 0), 0);
  assert.equal(delayBeforeRetry(policy, 3, undefined, () => 0.25), 100);
});

test('Retry-After is waited for in full, and the random part comes on top', () => {
  assert.equal(delayBeforeRetry(policy, 1, 3000, () => 0), 3000);
  assert.equal(delayBeforeRetry(policy, 2, 3000, () => 0.5), 3100);
});

test('Retry-After is read as seconds or as a date, and anything else is ignored', () => {
  const now = Date.parse('2026-01-01T00:00:00Z');
  assert.equal(parseRetryAfter('2', now), 2000);
  assert.equal(parseRetryAfter('0', now), 0);
  assert.equal(parseRetryAfter('Thu, 01 Jan 2026 00:00:05 GMT', now), 5000);
  assert.equal(parseRetryAfter('Wed, 31 Dec 2025 23:59:00 GMT', now), 0);
  assert.equal(parseRetryAfter('soon', now), undefined);
  assert.equal(parseRetryAfter(null, now), undefined);
});

test('only 429, 502, 503 and lost connections are worth another attempt', () => {
  const transient = (status: number): boolean => isTransient(serverError('x', { code: 'x', status }));
  const statuses = [400, 401, 403, 404, 405, 408, 413, 415, 417, 422, 429, 431, 500, 501, 502, 503, 504];
  assert.deepEqual(statuses.filter(transient), [429, 502, 503]);
  assert.equal(isTransient(new ClipConnectionError('x', 'ECONNRESET', null)), true);
  assert.equal(isTransient(new ClipConnectionError('x', 'ENOTFOUND', null)), false);
  assert.equal(isTransient(new TypeError('x')), false);
});

test('a wait ends at once when the signal is aborted, before it or during it', async () => {
  const reason = new Error('enough');
  await assert.rejects(sleep(60_000, AbortSignal.abort(reason)), reason);
  const controller = new AbortController();
  setTimeout(() => controller.abort(reason), 5);
  await assert.rejects(sleep(60_000, controller.signal), reason);
});

test('a wait longer than the platform\'s timers hold is no wait of a millisecond', async () => {
  for (const ms of [2 ** 31, 2 ** 40, Number.POSITIVE_INFINITY]) {
    const controller = new AbortController();
    const wait = sleep(ms, controller.signal).then(() => 'over', () => 'aborted');
    assert.equal(await Promise.race([wait, sleep(20).then(() => 'waiting')]), 'waiting');
    controller.abort();
    assert.equal(await wait, 'aborted');
  }
});
