/** The client: splits, limits, retries and joins. What goes over the wire is transport.ts and encoding.ts. */
import {
  readClassification, readHealth, readModels, readResults, readVector, readVectors,
  type Classification, type Health, type ImageResult, type Models,
} from './answers.js';
import { assertImage, described, encodeMultipart, PART_OVERHEAD_BYTES, toBytes, type ImageBytes } from './encoding.js';
import { BadImagesError, ClipConnectionError, DeadlineError, ImageError, TooLargeError, UnavailableError } from './errors.js';
import { Limiter } from './limiter.js';
import { exchangeLines } from './lines.js';
import { overOneRequest, type Loaded, type OneRequestOptions, type StreamResult } from './one-request.js';
import { resolveOptions, type ClipClientOptions, type Settings } from './options.js';
import { sleep, withRetry } from './retry.js';
import { group, mapOrdered } from './streams.js';
import { Transport, type Call, type Reply } from './transport.js';

export interface CallOptions {
  /** Ends the call, its requests and its waits; the call rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** A part of an image in pixels, seen upright: from the left, from the top, and its sides. */
export type Crop = readonly [x: number, y: number, width: number, height: number];

export interface EmbedImageOptions extends CallOptions {
  /** The part that is meant: its vector is that of the same part saved without loss and sent alone. */
  readonly crop?: Crop;
}

export interface ClassifyOptions extends CallOptions {
  /** Holds `{}` once, where each label is put. Without one it is the server's: `This is a photo of {}.` */
  readonly template?: string;
}

export interface StreamOptions extends CallOptions {
  /**
   * One long request, of which the server tells image by image, in the place of many: it is begun again where it broke off.
   * Needs a `fetch` that sends a stream while it reads the answer, as Node's does.
   */
  readonly oneRequest?: boolean;
}

export class ClipClient {
  readonly #settings: Settings;
  readonly #transport: Transport;
  readonly #limiter: Limiter;

  constructor(options: ClipClientOptions = {}) {
    this.#settings = resolveOptions(options);
    this.#transport = new Transport(this.#settings);
    this.#limiter = new Limiter(this.#settings.concurrency);
  }

  get baseUrl(): string {
    return this.#settings.baseUrl;
  }

  /** The unit-length vector of one image, or of a part of it. Send the original bytes: a resized copy has another vector. */
  async embedImage(image: ImageBytes, options: EmbedImageOptions = {}): Promise<Float32Array<ArrayBuffer>> {
    const query = options.crop === undefined ? PACKED : { ...PACKED, crop: options.crop.join(',') };
    const call = { path: this.#path('/embed', query), ...encodeMultipart('image', [await toBytes(image)]) };
    return readVector(await this.#send({ method: 'POST', ...call }, options.signal));
  }

  /**
   * One vector for each image, in order; throws BadImagesError, which names every bad one, if any is bad, and TypeError
   * before anything is sent if one is no bytes at all.
   */
  async embedImages(images: readonly ImageBytes[], options: CallOptions = {}): Promise<Float32Array<ArrayBuffer>[]> {
    const results = await this.embedImagesSettled(images, options);
    const failures = results.flatMap((result, index) => (result.ok ? [] : [{ index, error: result.error }]));
    if (failures.length > 0) throw new BadImagesError(failures);
    return results.flatMap((result) => (result.ok ? [result.embedding] : []));
  }

  /** A vector or the reason why not for each image, in order. */
  async embedImagesSettled(images: readonly ImageBytes[], options: CallOptions = {}): Promise<ImageResult[]> {
    Array.from(images).forEach((image, i) => assertImage(image, `images[${i}]`));
    const results: ImageResult[] = [];
    for await (const { item: _, ...result } of this.embedStream(images, (image) => image, options)) results.push(result);
    return results;
  }

  /**
   * The same for any number of images in flat memory: takes `items` as they come, reads each with `read`, and yields
   * results in order. At most `concurrency + 1` requests' worth of images are held. An error of `read` becomes that item's
   * result; an error of the server ends the stream.
   */
  async *embedStream<T>(
    items: Iterable<T> | AsyncIterable<T>,
    read: (item: T) => ImageBytes | Promise<ImageBytes>,
    options: StreamOptions = {},
  ): AsyncGenerator<StreamResult<T>> {
    const { concurrency, maxImagesPerRequest, maxBytesPerRequest } = this.#settings;
    const load = async (item: T): Promise<Loaded<T>> => {
      try {
        return { item, bytes: await toBytes(await read(item)) };
      } catch (error) {
        options.signal?.throwIfAborted();
        return { item, error: error instanceof Error ? error : new Error(String(error)) };
      }
    };
    const loaded = mapOrdered(items, READ_AHEAD, load, options.signal);
    if (options.oneRequest === true) return yield* this.#overOneRequest(loaded, options.signal);
    const size = (loaded: Loaded<T>): number => ('bytes' in loaded ? loaded.bytes.byteLength + PART_OVERHEAD_BYTES : 0);
    const groups = group(loaded, maxImagesPerRequest, maxBytesPerRequest, size);
    const embed = (batch: Loaded<T>[], signal: AbortSignal): Promise<StreamResult<T>[]> => this.#embedGroup(batch, signal);
    for await (const results of mapOrdered(groups, concurrency, embed, options.signal)) yield* results;
  }

  async embedText(text: string, options: CallOptions = {}): Promise<Float32Array<ArrayBuffer>> {
    assertText(text, 'text');
    return readVector(await this.#postJson(this.#path('/embed/text', PACKED), { text }, options.signal));
  }

  async embedTexts(texts: readonly string[], options: CallOptions = {}): Promise<Float32Array<ArrayBuffer>[]> {
    const { maxTextsPerRequest, concurrency } = this.#settings;
    if (typeof texts === 'string') throw new TypeError('texts is a string: embedText takes one, embedTexts a list');
    Array.from(texts).forEach((text, i) => assertText(text, `texts[${i}]`));
    const vectors: Float32Array<ArrayBuffer>[] = [];
    const groups = group(texts, maxTextsPerRequest, Number.POSITIVE_INFINITY, () => 0);
    const post = async (batch: string[], signal: AbortSignal): Promise<Float32Array<ArrayBuffer>[]> =>
      readVectors(await this.#postJson(this.#path('/embed/text', PACKED), { texts: batch }, signal), batch.length);
    for await (const batch of mapOrdered(groups, concurrency, post, options.signal)) vectors.push(...batch);
    return vectors;
  }

  /** How well each of `labels` fits one image, best first, as the model was trained to score. */
  async classify(image: ImageBytes, labels: readonly string[], options: ClassifyOptions = {}): Promise<Classification> {
    if (typeof labels === 'string') throw new TypeError('labels is a string: give a list of labels');
    const texts = Array.from(labels, (label, i): [string, string] => (assertText(label, `labels[${i}]`), ['labels', label]));
    if (options.template !== undefined) {
      assertText(options.template, 'template');
      texts.push(['template', options.template]);
    }
    const call = { path: this.#path('/classify', {}), ...encodeMultipart('image', [await toBytes(image)], texts) };
    return readClassification(await this.#send({ method: 'POST', ...call }, options.signal), labels.length);
  }

  /** What the server says of itself, also while it starts or stops. Does not retry. */
  async health(options: CallOptions = {}): Promise<Health> {
    const call: Call = { method: 'GET', path: '/health', accept: [503] };
    return readHealth(await this.#transport.exchange(call, options.signal));
  }

  async models(options: CallOptions = {}): Promise<Models> {
    return readModels(await this.#send({ method: 'GET', path: '/models' }, options.signal));
  }

  /** Resolves when the server can embed; rejects with the last reason after `timeoutMs`. */
  async waitUntilReady(timeoutMs: number, options: CallOptions = {}): Promise<Health> {
    if (!(timeoutMs >= 0)) throw new RangeError(`timeoutMs must be 0 or more, not ${timeoutMs}`);
    const start = performance.now();
    for (;;) {
      let reason: Error;
      try {
        const health = await this.health(options);
        if (health.status === 'healthy') return health;
        reason = new UnavailableError(`The server at ${this.baseUrl} is ${health.status}.`, { code: health.status, status: 503 });
      } catch (error) {
        if (!(error instanceof ClipConnectionError)) throw error;
        reason = error;
      }
      if (performance.now() - start >= timeoutMs) throw reason;
      await sleep(READY_INTERVAL_MS, options.signal);
    }
  }

  /** With the query of an endpoint that embeds, which names the client's model. */
  #path(path: string, query: Record<string, string>): string {
    const { model } = this.#settings;
    const text = new URLSearchParams(model === undefined ? query : { ...query, model }).toString();
    return text === '' ? path : `${path}?${text}`;
  }

  #overOneRequest<T>(loaded: AsyncGenerator<Loaded<T>>, signal: AbortSignal | undefined): AsyncGenerator<StreamResult<T>> {
    const { concurrency, maxImagesPerRequest, maxBytesPerRequest, retry, onRetry } = this.#settings;
    const path = this.#path('/embed/batch', PACKED);
    const options: OneRequestOptions = {
      maxImages: Math.max(2, concurrency * maxImagesPerRequest),
      maxBytes: concurrency * maxBytesPerRequest,
      retry,
      onRetry,
      exchange: (call, signal) => this.#limiter.run(() => exchangeLines(this.#settings, { path, field: 'images', ...call }, signal)),
    };
    return overOneRequest(loaded, options, signal);
  }

  #postJson(path: string, body: unknown, signal: AbortSignal | undefined): Promise<Reply> {
    return this.#send({ method: 'POST', path, body: JSON.stringify(body), contentType: 'application/json' }, signal);
  }

  #send(call: Call, signal: AbortSignal | undefined): Promise<Reply> {
    const { retry: policy, onRetry } = this.#settings;
    const once = (): Promise<Reply> => this.#transport.exchange(call, signal);
    // A request keeps its place while it waits: a server that is full then gets fewer requests, not newer ones instead.
    return this.#limiter.run(() => withRetry(once, { policy, signal, onRetry }));
  }

  async #embedGroup<T>(batch: readonly Loaded<T>[], signal: AbortSignal | undefined): Promise<StreamResult<T>[]> {
    const images = batch.flatMap((loaded) => ('bytes' in loaded ? [loaded.bytes] : []));
    const results = (await this.#embedBytes(images, signal)).values();
    return batch.map((loaded) => {
      if ('error' in loaded) return { item: loaded.item, ok: false, error: loaded.error };
      return { item: loaded.item, ...(results.next().value as ImageResult) };
    });
  }

  /** One request; halved when the server finds it too large or too slow for one, down to a single image. */
  async #embedBytes(images: readonly Uint8Array[], signal: AbortSignal | undefined): Promise<ImageResult[]> {
    if (images.length === 0) return [];
    try {
      const path = this.#path('/embed/batch', { on_error: 'null', ...PACKED });
      const reply = await this.#send({ method: 'POST', path, ...encodeMultipart('images', images) }, signal);
      return readResults(reply, images.length);
    } catch (error) {
      const tooMuch = error instanceof TooLargeError || error instanceof DeadlineError;
      if (tooMuch && images.length > 1) {
        const middle = Math.ceil(images.length / 2);
        const first = await this.#embedBytes(images.slice(0, middle), signal);
        return [...first, ...(await this.#embedBytes(images.slice(middle), signal))];
      }
      if (error instanceof ImageError || error instanceof TooLargeError) return images.map(() => ({ ok: false, error }));
      throw error;
    }
  }
}

function assertText(text: unknown, name: string): void {
  if (typeof text !== 'string') throw new TypeError(`${name} is ${described(text)}, not a string`);
}

/** How vectors come: a quarter of the bytes of numbers written out. */
const PACKED = { encoding: 'base64' };
/** Images read at once, ahead of the request they will travel in. */
const READ_AHEAD = 8;
const READY_INTERVAL_MS = 200;
