/**
 * Any number of images over one long request: sent as they come, told of as they are done, yielded in their order. What a
 * request that breaks off has not told of is sent again in the next. Knows nothing of how they go over the wire.
 */
import { followAbort } from './abort.js';
import { readLast, readStreamed, type ImageResult } from './answers.js';
import { ClipConnectionError, ClipProtocolError, ClipServerError, DeadlineError, TooLargeError } from './errors.js';
import type { Line, LinesCall } from './lines.js';
import { delayBeforeRetry, isTransient, sleep, type RetryNotice, type RetryPolicy } from './retry.js';

export type Loaded<T> = { readonly item: T; readonly bytes: Uint8Array } | { readonly item: T; readonly error: Error };
export type StreamResult<T> = ImageResult & { readonly item: T };

export interface OneRequestOptions {
  /** Images, and bytes of them, that are taken from the source and not yet yielded; at least one. */
  readonly maxImages: number;
  readonly maxBytes: number;
  readonly retry: RetryPolicy;
  readonly onRetry: ((notice: RetryNotice) => void) | undefined;
  /** Sends one request; resolves when its answer has ended. */
  readonly exchange: (call: Pick<LinesCall, 'parts' | 'waiting' | 'onLine'>, signal: AbortSignal) => Promise<void>;
}

/** Images of one request: fewer than a server takes by default, so that another begins before it has to say so. */
const IMAGES_PER_REQUEST = 8000;
/** How long a request is kept open for a source that brings nothing, or a consumer that takes nothing. */
const IDLE_MS = 2000;

export async function* overOneRequest<T>(
  source: AsyncIterable<Loaded<T>>,
  options: OneRequestOptions,
  signal: AbortSignal | undefined,
): AsyncGenerator<StreamResult<T>> {
  signal?.throwIfAborted();
  const controller = new AbortController();
  const letGo = followAbort(signal, controller);
  const work = new Work<T>(options, controller.signal);
  controller.signal.addEventListener('abort', () => work.wake(), { once: true });
  const fail = (error: unknown): void => controller.abort(error);
  const filling = work.fill(source).catch(fail);
  const sending = work.send().catch(fail);
  try {
    for (;;) {
      const next = await work.next();
      if (next === undefined) return;
      yield next;
    }
  } finally {
    letGo();
    controller.abort();
    await sending;
    if (!work.reading) await filling; // else it ends with what it waits for, whenever that comes
  }
}

interface Entry<T> {
  readonly loaded: Loaded<T>;
  /** The request that it was sent in last. */
  request: number;
  result: StreamResult<T> | undefined;
}

/** Three that wait for one another: `fill` takes from the source, `send` has it answered, `next` gives it away. */
class Work<T> {
  /** True while the source is asked for more. */
  reading = false;
  readonly #entries: Entry<T>[] = [];
  #bytes = 0;
  /** The source has nothing more; and all it had is answered. */
  #ended = false;
  #over = false;
  #requests = 0;
  #answered = 0;
  #wake = (): void => undefined;
  #changed: Promise<void>;

  constructor(
    readonly options: OneRequestOptions,
    readonly signal: AbortSignal,
  ) {
    this.#changed = this.#renewed();
  }

  wake(): void {
    this.#wake();
    this.#changed = this.#renewed();
  }

  async fill(source: AsyncIterable<Loaded<T>>): Promise<void> {
    const iterator = source[Symbol.asyncIterator]();
    try {
      for (;;) {
        await this.#until(() => this.#hasRoom());
        this.reading = true;
        const { done, value } = await iterator.next();
        this.reading = false;
        if (done === true) break;
        this.#add(value);
      }
      this.#ended = true;
      this.wake();
    } finally {
      this.reading = false;
      if (!this.#ended) await iterator.return?.();
    }
  }

  async next(): Promise<StreamResult<T> | undefined> {
    await this.#until(() => (this.#entries.length === 0 ? this.#over : this.#entries[0]?.result !== undefined));
    const first = this.#entries.shift();
    if (first === undefined) return undefined;
    this.#bytes -= sizeOf(first.loaded);
    this.wake();
    return first.result;
  }

  async send(): Promise<void> {
    const { retry: policy, onRetry } = this.options;
    let failures = 0;
    let since = performance.now();
    for (;;) {
      await this.#until(() => this.#ended || this.#unanswered() !== undefined);
      if (this.#unanswered() === undefined) break;
      const before = this.#answered;
      const error = await this.#request().catch((thrown: unknown) => thrown);
      this.signal.throwIfAborted();
      const gotOn = this.#answered > before;
      if (gotOn) [failures, since] = [0, performance.now()];
      if (error === undefined || (gotOn && error instanceof TooLargeError)) continue;
      failures += 1;
      if (!(error instanceof Error) || !isWorthAnother(error) || failures >= policy.maxAttempts) throw error;
      const delayMs = delayBeforeRetry(policy, failures, error instanceof ClipServerError ? error.retryAfterMs : undefined);
      if (performance.now() - since + delayMs > policy.maxElapsedMs) throw error;
      onRetry?.({ attempt: failures, delayMs, error });
      await sleep(delayMs, this.signal);
    }
    this.#over = true;
    this.wake();
  }

  /** Sends one request to its end. Resolves with what kept it, or an image, from being answered: undefined for nothing. */
  async #request(): Promise<Error | undefined> {
    const number = ++this.#requests;
    const open = new Map<number, Entry<T>>();
    let over = false;
    let problem: Error | undefined = new ClipConnectionError('The answer ended before its last line.', 'ECONNRESET', undefined);
    let ofImage: Error | undefined;
    const onLine = (line: Line, embeddingId: string | undefined): void => {
      if ('done' in line) {
        problem = readLast(line) ?? (open.size > 0 ? missing(open.size) : ofImage);
        return;
      }
      const { index, result } = readStreamed(line, embeddingId);
      const entry = open.get(index);
      if (entry === undefined) throw new ClipProtocolError(`The server told of image ${index}, which was not sent.`);
      open.delete(index);
      if (!result.ok && isWorthAnother(result.error)) {
        ofImage = result.error; // it is sent again, in another request
      } else {
        entry.result = { item: entry.loaded.item, ...result };
        this.#answered += 1;
      }
      this.wake();
    };
    try {
      const parts = this.#parts(number, open, () => over);
      await this.options.exchange({ parts, waiting: () => open.size > 0, onLine }, this.signal);
    } finally {
      over = true;
      this.wake();
    }
    return problem;
  }

  async *#parts(number: number, open: Map<number, Entry<T>>, isOver: () => boolean): AsyncGenerator<Uint8Array> {
    for (let index = 0; index < IMAGES_PER_REQUEST; index++) {
      let entry = this.#unanswered(number);
      while (entry === undefined) {
        if (this.#ended || isOver() || this.signal.aborted) return;
        // The last image is not whole for the server until another one begins, or the form ends.
        if ((await this.#idle()) && open.size <= 1) return;
        entry = this.#unanswered(number);
      }
      entry.request = number;
      open.set(index, entry);
      if ('bytes' in entry.loaded) yield entry.loaded.bytes;
    }
  }

  /** The first image without a result that was not sent in request `number`. */
  #unanswered(number = 0): Entry<T> | undefined {
    return this.#entries.find((entry) => entry.result === undefined && (number === 0 || entry.request !== number));
  }

  #add(loaded: Loaded<T>): void {
    const result: StreamResult<T> | undefined =
      'error' in loaded ? { item: loaded.item, ok: false, error: loaded.error } : undefined;
    this.#entries.push({ loaded, request: 0, result });
    this.#bytes += sizeOf(loaded);
    this.wake();
  }

  #hasRoom(): boolean {
    const { maxImages, maxBytes } = this.options;
    return this.#entries.length === 0 || (this.#entries.length < maxImages && this.#bytes < maxBytes);
  }

  /** Throws the signal's reason once it is aborted. */
  async #until(condition: () => boolean): Promise<void> {
    for (;;) {
      this.signal.throwIfAborted();
      if (condition()) return;
      await this.#changed;
    }
  }

  /** Waits for a change; true if there was none for long. */
  async #idle(): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<boolean>((resolve) => (timer = setTimeout(resolve, IDLE_MS, true)));
    try {
      return await Promise.race([this.#changed.then(() => false), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #renewed(): Promise<void> {
    return new Promise((resolve) => (this.#wake = resolve));
  }
}

const sizeOf = (loaded: Loaded<unknown>): number => ('bytes' in loaded ? loaded.bytes.byteLength : 0);

/** What another request may not meet: a server that is stopping, full or slow, a connection that was lost. */
const isWorthAnother = (error: Error): boolean => isTransient(error) || error instanceof DeadlineError;

const missing = (count: number): ClipProtocolError =>
  new ClipProtocolError(`The server says that it is done, and has not told of ${count} images.`);
