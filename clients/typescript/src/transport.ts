/** One HTTP exchange: time limit, cancellation, and every failure as a ClipError. Sends once; retries live elsewhere. */
import { followAbort } from './abort.js';
import { ClipConnectionError, ClipError, ClipProtocolError, ClipTimeoutError, serverError } from './errors.js';
import { LONGEST_TIMER_MS, parseRetryAfter } from './retry.js';

export interface Call {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly body?: Uint8Array<ArrayBuffer> | string;
  readonly contentType?: string;
  /** Statuses besides 2xx whose body is an answer, not an error. */
  readonly accept?: readonly number[];
}

export interface Reply {
  readonly status: number;
  readonly json: unknown;
  readonly embeddingId: string | undefined;
}

export interface TransportOptions {
  readonly baseUrl: string;
  readonly apiKey: string | undefined;
  readonly timeoutMs: number;
  readonly fetch: typeof globalThis.fetch;
}

export class Transport {
  constructor(readonly options: TransportOptions) {}

  async exchange(call: Call, signal: AbortSignal | undefined): Promise<Reply> {
    const { baseUrl, timeoutMs } = this.options;
    signal?.throwIfAborted();
    const controller = new AbortController();
    const letGo = followAbort(signal, controller);
    const expire = (): void => controller.abort(new ClipTimeoutError(`${baseUrl} did not answer within ${timeoutMs} ms.`));
    const timer = timeoutMs > LONGEST_TIMER_MS ? undefined : setTimeout(expire, timeoutMs);
    try {
      const response = await this.options.fetch(baseUrl + call.path, requestInit(this.options, call, controller.signal));
      const text = await response.text();
      return readReply(call, response, text);
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      throw error instanceof ClipError ? error : connectionError(baseUrl, error);
    } finally {
      clearTimeout(timer);
      letGo();
    }
  }
}

export function requestInit({ apiKey }: TransportOptions, call: Call, signal: AbortSignal, accept = 'application/json'): RequestInit {
  const headers: Record<string, string> = { Accept: accept };
  if (apiKey !== undefined) headers['Authorization'] = `Bearer ${apiKey}`;
  if (call.contentType !== undefined) headers['Content-Type'] = call.contentType;
  const init: RequestInit = { method: call.method, headers, signal, redirect: 'error' };
  if (call.body !== undefined) init.body = call.body;
  return init;
}

/** Throws the error that an answer tells of, and ClipProtocolError for one that is not the server's. */
export function readReply(call: Call, response: Response, text: string): Reply {
  const json = parseJson(text);
  if (response.ok || call.accept?.includes(response.status)) {
    if (!isRecord(json)) {
      throw new ClipProtocolError(`${call.path} answered ${response.status} with something that is not a JSON object.`);
    }
    return { status: response.status, json, embeddingId: response.headers.get('x-embedding-id') ?? undefined };
  }
  const error = isRecord(json) && isRecord(json['error']) ? json['error'] : {};
  const requestId = isRecord(json) ? json['request_id'] : undefined;
  const { code, message, details } = error;
  throw serverError(typeof message === 'string' ? message : `${response.status} ${text.slice(0, 200)}`.trim(), {
    code: typeof code === 'string' ? code : `http_${response.status}`,
    status: response.status,
    details: isRecord(details) ? details : {},
    requestId: typeof requestId === 'string' ? requestId : (response.headers.get('x-request-id') ?? undefined),
    retryAfterMs: parseRetryAfter(response.headers.get('retry-after')),
  });
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** `fetch` hides the system's error in `cause`; with both address families tried it is an AggregateError. */
export function connectionError(baseUrl: string, error: unknown): ClipConnectionError {
  const cause: unknown = error instanceof Error ? (error.cause ?? error) : error;
  const code = isRecord(cause) && typeof cause['code'] === 'string' ? cause['code'] : 'unknown';
  const reason = cause instanceof Error && cause.message !== '' ? cause.message : code;
  return new ClipConnectionError(`No answer from ${baseUrl}: ${reason}.`, code, error);
}
