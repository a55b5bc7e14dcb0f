/** What the images are compared with: words, an image, or nothing; and the vector of it. Knows nothing of how it is shown. */
import { Refused, Unreachable } from './server.js';

/** @typedef {import('./server.js').EmbeddedText} EmbeddedText */
/** @typedef {import('./album.js').Entry} Entry */
/** @typedef {{kind: 'text', text: string, found: EmbeddedText | null} | {kind: 'image', entry: Entry} | null} Query */

/** Milliseconds after the last letter. */
const QUIET = 250;
/** Texts whose vectors are remembered. */
const REMEMBERED = 64;

export class Search {
  /** @type {Query} */
  query = null;
  #server;
  #changed;
  #failed;
  /** @type {Map<string, EmbeddedText>} by model and text */
  #known = new Map();
  #timer = 0;
  #stop = new AbortController();

  /**
   * @param {import('./server.js').Server} server
   * @param {() => void} changed the query, or its vector, is another
   * @param {(error: Refused | Unreachable | null) => void} failed null: all is well again
   */
  constructor(server, changed, failed) {
    this.#server = server;
    this.#changed = changed;
    this.#failed = failed;
  }

  /** @returns {Float32Array | null} null as long as there is none */
  get vector() {
    if (this.query?.kind === 'text') return this.query.found?.vector ?? null;
    return this.query?.entry.vector ?? null;
  }

  /**
   * @param {string} text '' for no query
   * @param {string} model
   * @param {boolean} atOnce else a moment after the last letter
   */
  words(text, model, atOnce) {
    this.#forget();
    if (text === '') {
      this.#set(null);
      return;
    }
    const known = this.#known.get(`${model}\n${text}`);
    if (known) this.#set({ kind: 'text', text, found: known });
    else this.#timer = setTimeout(() => void this.#ask(text, model, this.#stop.signal), atOnce ? 0 : QUIET);
  }

  /** @param {Entry} entry */
  image(entry) {
    this.#forget();
    this.#set({ kind: 'image', entry });
  }

  none() {
    this.#forget();
    this.#set(null);
  }

  /**
   * @param {string} text
   * @param {string} model
   * @param {AbortSignal} stop
   */
  async #ask(text, model, stop) {
    try {
      const found = await this.#server.embedText(text, model, stop);
      if (stop.aborted) return;
      this.#known.set(`${model}\n${text}`, found);
      for (const oldest of this.#known.keys()) {
        if (this.#known.size <= REMEMBERED) break;
        this.#known.delete(oldest);
      }
      this.#failed(null);
      this.#set({ kind: 'text', text, found });
    } catch (error) {
      if (stop.aborted) return;
      if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
      this.#failed(error);
      if (error instanceof Refused && error.retryAfter > 0) {
        this.#timer = setTimeout(() => void this.#ask(text, model, stop), 1000 * error.retryAfter);
      }
    }
  }

  /** @param {Query} query */
  #set(query) {
    this.query = query;
    this.#changed();
  }

  #forget() {
    clearTimeout(this.#timer);
    this.#stop.abort();
    this.#stop = new AbortController();
    this.#failed(null);
  }
}
