/** When to send again and how long to wait first. Knows nothing of HTTP beyond the error classes. */
import { setTimeout as delay } from 'node:timers/promises';
import { followAbort } from './abort.js';
import { ClipConnectionError, ClipServerError, ClipTimeoutError, OverloadedError, UnavailableError } from './errors.js';

export interface RetryPolicy {
  /** How often a request is sent at most, the first time included. */
  readonly maxAttempts: number;
  /** The longest wait before the second attempt; it doubles with each further one. */
  readonly baseDelayMs: number;
  readonly maxDelayMs: number;
  /** No further attempt starts later than this after the first. */
  readonly maxElapsedMs: number;
}

export const DEFAULT_RETRY: RetryPolicy = {
  maxAttempts: 6,
  baseDelayMs: 250,
  maxDelayMs: 10_000,
  maxElapsedMs: 120_000,
};

const TRANSIENT_CONNECTION_CODES = new Set([
  'EAI_AGAIN', 'ECONNREFUSED', 'ECONNRESET', 'EHOSTUNREACH', 'ENETUNREACH', 'EPIPE', 'ETIMEDOUT',
  'UND_ERR_CONNECT_TIMEOUT', 'UND_ERR_SOCKET',
]);

/** True for errors that a later, identical request may not meet. A 4xx of the request's own making never is. */
export function isTransient(error: unknown): boolean {
  if (error instanceof ClipConnectionError) return TRANSIENT_CONNECTION_CODES.has(error.code);
  return error instanceof OverloadedError || error instanceof UnavailableError || error instanceof ClipTimeoutError;
}

/**
 * Milliseconds to wait after the `attempt`-th failure (counted from 1): a random part of an exponentially growing
 * bound ("full jitter", https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/),
 * after the server's own Retry-After if it named one.
 */
export function delayBeforeRetry(
  policy: RetryPolicy,
  attempt: number,
  retryAfterMs: number | undefined,
  random: () => number = Math.random,
): number {
  const bound = Math.min(policy.maxDelayMs, policy.baseDelayMs * 2 ** (attempt - 1));
  return (retryAfterMs ?? 0) + random() * bound;
}

/** `Retry-After` in milliseconds: seconds or an HTTP date (RFC 9110, 10.2.3); undefined if it is neither. */
export function parseRetryAfter(value: string | null, now: number = Date.now()): number | undefined {
  if (value === null) return undefined;
  if (/^\s*\d+(\.\d+)?\s*$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/** The platform's timers fire after 1 ms when they are given more. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Waits, however long; rejects with the signal's reason as soon as it is aborted. */
export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  const controller = new AbortController();
  const letGo = followAbort(signal, controller);
  try {
    let left = ms;
    do {
      const part = Math.min(left, LONGEST_TIMER_MS);
      await delay(part, undefined, { signal: controller.signal });
      left -= part;
    } while (left > 0);
  } catch (error) {
    throw controller.signal.reason ?? error;
  } finally {
    letGo();
  }
}

export interface RetryNotice {
  readonly attempt: number;
  readonly delayMs: number;
  readonly error: Error;
}

export interface RetryOptions {
  readonly policy: RetryPolicy;
  readonly signal?: AbortSignal | undefined;
  readonly onRetry?: ((notice: RetryNotice) => void) | undefined;
  /** Default: `isTransient`. */
  readonly worthRetrying?: (error: unknown) => boolean;
}

/** Calls `send` until it succeeds, fails for good, or the policy is used up; then the last error is thrown. */
export async function withRetry<T>(send: () => Promise<T>, options: RetryOptions): Promise<T> {
  const { policy, signal, onRetry, worthRetrying = isTransient } = options;
  const start = performance.now();
  for (let attempt = 1; ; attempt++) {
    try {
      return await send();
    } catch (error) {
      if (!(error instanceof Error) || !worthRetrying(error) || attempt >= policy.maxAttempts) throw error;
      const retryAfterMs = error instanceof ClipServerError ? error.retryAfterMs : undefined;
      const delayMs = delayBeforeRetry(policy, attempt, retryAfterMs);
      if (performance.now() - start + delayMs > policy.maxElapsedMs) throw error;
      onRetry?.({ attempt, delayMs, error });
      await sleep(delayMs, signal);
    }
  }
}
