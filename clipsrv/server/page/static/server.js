/** Asks the server, as any client does: a request and its answer, or an error that says what to do. Knows nothing of the page. */

/** The server answered that it will not. `retryAfter` is in seconds, 0 if it said nothing of it. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {{code?: string, message?: string, details?: Record<string, any>}} error
   * @param {number} retryAfter
   */
  constructor(status, error, retryAfter) {
    super(error.message ?? `HTTP ${status}`);
    this.status = status;
    this.code = error.code ?? '';
    this.details = error.details ?? {};
    this.retryAfter = retryAfter;
  }
}

/** There was no answer: nobody listens, or the connection was lost. */
export class Unreachable extends Error {}

/** @typedef {{id: string, vectors: (Float32Array | null)[], bad: Map<number, {code: string, message: string}>}} Embedded */
/** @typedef {{id: string, vector: Float32Array, cut: boolean, unknownScript: boolean, milliseconds: number}} EmbeddedText */
/** @typedef {{label: string, score: number, similarity: number}} Score */
/** @typedef {{labels: Score[], scoring: 'softmax' | 'sigmoid', unknown_script?: string[]}} Classified */
/** @typedef {{converted: boolean, loaded?: boolean, device?: string, precision?: string, dimensions?: number, embedding_id?: string, text?: boolean}} ModelFacts */
/** @typedef {{models: string[], current: string, details: Record<string, ModelFacts>}} Models */
/** @typedef {{id: string, path: string, score?: number}} Indexed one image of the index that the server has */
/** @typedef {{results: Indexed[], model: string, truncated?: boolean, unknown_script?: boolean}} FoundInIndex */
/** @typedef {'healthy' | 'starting' | 'draining' | 'unhealthy'} Status */

export class Server {
  /**
   * @param {URL} base the address of the page, which is the server's
   * @param {() => string} key the API key, '' for none
   */
  constructor(base, key) {
    this.base = base;
    this.key = key;
  }

  /** @returns {Promise<{status: Status, model: string}>} Unreachable where there is no answer. */
  async health() {
    const response = await this.#fetch('health', { signal: AbortSignal.timeout(10_000) });
    return body(response);
  }

  /** @returns {Promise<Models>} */
  async models() {
    return body(await this.#asked('models', {}));
  }

  /**
   * The vectors of images, those that cannot be used being null; and which and why.
   * @param {readonly File[]} files
   * @param {string} model
   * @param {AbortSignal} signal
   * @returns {Promise<Embedded>}
   */
  async embedImages(files, model, signal) {
    const form = new FormData();
    for (const file of files) form.append('images', file, file.name);
    const query = new URLSearchParams({ model, encoding: 'base64', on_error: 'null' });
    const response = await this.#asked(`embed/batch?${query}`, { method: 'POST', body: form, signal });
    const { embeddings, errors } = await body(response);
    return {
      id: response.headers.get('X-Embedding-Id') ?? '',
      vectors: embeddings.map((/** @type {string | null} */ one) => (one === null ? null : vectorOf(one))),
      bad: new Map(errors.map((/** @type {{index: number, code: string, message: string}} */ one) => [one.index, one])),
    };
  }

  /**
   * @param {string} text
   * @param {string} model
   * @param {AbortSignal} signal
   * @returns {Promise<EmbeddedText>}
   */
  async embedText(text, model, signal) {
    const started = performance.now();
    const response = await this.#asked('embed/text?encoding=base64', json({ text, model }, signal));
    const { embedding, truncated, unknown_script: unknownScript = false } = await body(response);
    return {
      id: response.headers.get('X-Embedding-Id') ?? '',
      vector: vectorOf(embedding),
      cut: truncated,
      unknownScript,
      milliseconds: performance.now() - started,
    };
  }

  /**
   * @param {File} file
   * @param {readonly string[]} labels
   * @param {string} template
   * @param {string} model
   * @returns {Promise<Classified>}
   */
  async classify(file, labels, template, model) {
    const form = new FormData();
    form.append('image', file, file.name);
    for (const label of labels) form.append('labels', label);
    form.append('template', template);
    return body(await this.#asked(`classify?${new URLSearchParams({ model })}`, { method: 'POST', body: form }));
  }

  /**
   * Images of the server's index, in its order; none where it has no index.
   * @param {number} first
   * @param {number} limit
   * @returns {Promise<{count: number, items: Indexed[], model: string | null}>}
   */
  async indexed(first, limit) {
    return body(await this.#asked(`gallery?first=${first}&limit=${limit}`, {}));
  }

  /**
   * What is nearest in the index to an image of it.
   * @param {string} id
   * @param {number} limit
   * @returns {Promise<FoundInIndex>}
   */
  async nearIndexed(id, limit) {
    return body(await this.#asked(`gallery/near?${new URLSearchParams({ id, limit: String(limit) })}`, {}));
  }

  /**
   * A small copy of an image of the index.
   * @param {string} id
   * @returns {Promise<Blob>}
   */
  async indexedThumbnail(id) {
    return (await this.#asked(`gallery/thumbnail?${new URLSearchParams({ id })}`, {})).blob();
  }

  /**
   * What is nearest in the index to a text or to an image of any kind.
   * @param {string | File} query
   * @param {number} limit
   * @returns {Promise<FoundInIndex>}
   */
  async search(query, limit) {
    if (typeof query === 'string') return body(await this.#asked(`search?limit=${limit}`, json({ text: query })));
    const form = new FormData();
    form.append('image', query, query.name);
    return body(await this.#asked(`search?limit=${limit}`, { method: 'POST', body: form }));
  }

  /**
   * @param {string} path
   * @param {RequestInit} options
   */
  async #asked(path, options) {
    const response = await this.#fetch(path, options);
    if (response.ok) return response;
    const { error } = await body(response).catch(() => ({ error: {} }));
    throw new Refused(response.status, error ?? {}, Number(response.headers.get('Retry-After')) || 0);
  }

  /**
   * @param {string} path
   * @param {RequestInit} options
   */
  async #fetch(path, options) {
    const headers = new Headers(options.headers);
    if (this.key()) headers.set('Authorization', `Bearer ${inBytes(this.key())}`);
    try {
      return await fetch(new URL(path, this.base), { ...options, headers, credentials: 'omit' });
    } catch (error) {
      if (options.signal?.aborted && !(error instanceof DOMException && error.name === 'TimeoutError')) throw error;
      throw new Unreachable(String(error));
    }
  }
}

/**
 * @param {unknown} value
 * @param {AbortSignal | null} signal
 * @returns {RequestInit}
 */
function json(value, signal = null) {
  return { method: 'POST', body: JSON.stringify(value), headers: { 'Content-Type': 'application/json' }, signal };
}

/**
 * The JSON of an answer; Unreachable if the connection was lost within it.
 * @param {Response} response
 * @returns {Promise<any>}
 */
async function body(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error instanceof SyntaxError) throw new Refused(response.status, { message: `HTTP ${response.status}` }, 0);
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new Unreachable(String(error));
  }
}

/** @param {string} base64 little-endian float32 */
function vectorOf(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

/**
 * A key as a header carries it: fetch takes no character beyond Latin-1, the server reads UTF-8.
 * @param {string} key
 */
function inBytes(key) {
  return String.fromCharCode(...new TextEncoder().encode(key));
}
