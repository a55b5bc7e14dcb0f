/** What a client can be told, and the values it takes when it is not. */
import { DEFAULT_RETRY, type RetryNotice, type RetryPolicy } from './retry.js';

export interface ClipClientOptions {
  /** Default: the environment's CLIP_SERVER_URL, else http://localhost:5000. */
  readonly baseUrl?: string;
  /** Sent as `Authorization: Bearer`. Default: the environment's CLIP_API_KEY, else none. */
  readonly apiKey?: string;
  /** The model that all vectors of this client are of, by its name or an alias. Default: the server's own choice. */
  readonly model?: string;
  /**
   * For one request, from sending to the last byte of the answer; default 120 s, longer than the server's own limits.
   * 2 ** 31 (24.8 days) or more, or Infinity: without a limit.
   */
  readonly timeoutMs?: number;
  /** Requests under way at once; further ones wait in the client. */
  readonly concurrency?: number;
  readonly maxImagesPerRequest?: number;
  /** Encoded bytes; a larger image travels alone. */
  readonly maxBytesPerRequest?: number;
  readonly maxTextsPerRequest?: number;
  readonly retry?: Partial<RetryPolicy>;
  /** Told before each wait for another attempt. */
  readonly onRetry?: (notice: RetryNotice) => void;
  /** Default: the platform's. */
  readonly fetch?: typeof globalThis.fetch;
}

export interface Settings {
  readonly baseUrl: string;
  readonly apiKey: string | undefined;
  readonly model: string | undefined;
  readonly timeoutMs: number;
  readonly concurrency: number;
  readonly maxImagesPerRequest: number;
  readonly maxBytesPerRequest: number;
  readonly maxTextsPerRequest: number;
  readonly retry: RetryPolicy;
  readonly onRetry: ((notice: RetryNotice) => void) | undefined;
  readonly fetch: typeof globalThis.fetch;
}

/** Throws RangeError for a number that cannot be meant, TypeError for a base URL that is none. */
export function resolveOptions(options: ClipClientOptions): Settings {
  const settings: Settings = {
    baseUrl: (options.baseUrl ?? process.env['CLIP_SERVER_URL'] ?? 'http://localhost:5000').replace(/\/+$/, ''),
    apiKey: options.apiKey ?? process.env['CLIP_API_KEY'],
    model: options.model,
    timeoutMs: options.timeoutMs ?? 120_000,
    concurrency: options.concurrency ?? 4,
    maxImagesPerRequest: options.maxImagesPerRequest ?? 32,
    maxBytesPerRequest: options.maxBytesPerRequest ?? 16 * 1024 * 1024,
    maxTextsPerRequest: options.maxTextsPerRequest ?? 32,
    retry: { ...DEFAULT_RETRY, ...options.retry },
    onRetry: options.onRetry,
    fetch: options.fetch ?? globalThis.fetch,
  };
  if (!/^https?:$/.test(new URL(settings.baseUrl).protocol)) {
    throw new TypeError(`baseUrl must begin with http:// or https://, not ${settings.baseUrl}`);
  }
  const { timeoutMs, concurrency, maxImagesPerRequest, maxBytesPerRequest, maxTextsPerRequest, retry } = settings;
  const { maxAttempts, ...waits } = retry;
  const counts = { concurrency, maxImagesPerRequest, maxBytesPerRequest, maxTextsPerRequest };
  const endless = { timeoutMs, 'retry.maxAttempts': maxAttempts };
  for (const [name, value] of Object.entries({ ...counts, ...endless })) {
    const isCount = Number.isInteger(value) || (name in endless && value === Infinity);
    if (!isCount || value < 1) throw new RangeError(`${name} must be a whole number above 0, not ${value}`);
  }
  for (const [name, value] of Object.entries(waits)) {
    if (!(value >= 0)) throw new RangeError(`retry.${name} must be 0 or more, not ${value}`);
  }
  return settings;
}
