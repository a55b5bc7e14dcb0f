/** Embeds images in steps through the server, whatever happens to either: busy, gone, too much at once, one that is none. */
import { inMemory } from './files.js';
import { Refused, Unreachable } from './server.js';

/** @typedef {import('./album.js').Entry} Entry */
/** @typedef {{code: string, message: string}} Reason */
/** @typedef {{done: number, all: number, perSecond: number}} Progress */
/**
 * @typedef {object} Told
 * @property {(embeddingId: string, found: [Entry, Float32Array][]) => Promise<void> | void} embedded
 * @property {(entry: Entry, reason: Reason) => void} failed
 * @property {(progress: Progress) => void} progress
 * @property {(why: 'busy' | 'gone' | 'key' | null, seconds: number) => void} held it waits, and why; null: it goes on
 */

/** Images and bytes of a step, at first. */
const IMAGES = 16;
const BYTES = 16 * 2 ** 20;
/** Requests at once: while one is computed the next is on its way. */
const AT_ONCE = 2;
/** Times that a step is sent which is neither answered nor refused. */
const TRIES = 3;
/** Seconds between two looks whether the server is back. */
const LOOK_AGAIN = 1;

export class Intake {
  #server;
  #file;
  #told;
  #model = '';
  /** @type {Entry[]} */
  #queue = [];
  /** @type {Map<string, number>} */
  #tries = new Map();
  #step = { images: IMAGES, bytes: BYTES };
  #running = 0;
  #counted = { done: 0, all: 0, since: 0 };
  #stop = new AbortController();
  /** @type {Promise<void> | null} One wait for all: whoever finds the server busy or gone holds the others too. */
  #holding = null;
  /** @type {(() => void) | null} */
  #unlock = null;

  /**
   * @param {import('./server.js').Server} server
   * @param {(entry: Entry) => Promise<File | null>} file
   * @param {Told} told
   */
  constructor(server, file, told) {
    this.#server = server;
    this.#file = file;
    this.#told = told;
  }

  /**
   * @param {string} model
   * @param {readonly Entry[]} entries
   */
  add(model, entries) {
    if (entries.length === 0) return;
    if (this.#counted.done === this.#counted.all) this.#counted = { done: 0, all: 0, since: performance.now() };
    this.#model = model;
    this.#queue.push(...entries);
    this.#counted.all += entries.length;
    this.#report();
    while (this.#running < Math.min(AT_ONCE, this.#queue.length)) void this.#work(this.#stop.signal);
  }

  /** Forgets all that waits, and the answers of what is under way. */
  cancel() {
    this.#stop.abort();
    this.#stop = new AbortController();
    this.#queue = [];
    this.#tries.clear();
    this.#running = 0;
    this.#counted = { done: 0, all: 0, since: 0 };
    this.#unlock?.();
    this.#told.held(null, 0);
    this.#report();
  }

  unlock() {
    this.#unlock?.();
  }

  /** @param {AbortSignal} stop */
  async #work(stop) {
    this.#running++;
    while (this.#queue.length > 0 && !stop.aborted) {
      await this.#holding;
      if (!stop.aborted) await this.#one(this.#take(), stop);
    }
    if (!stop.aborted) this.#running--;
  }

  /** The next images, as many as fit in a step; at least one. */
  #take() {
    let [count, bytes] = [0, 0];
    for (const entry of this.#queue.slice(0, this.#step.images)) {
      bytes += entry.size;
      if (count > 0 && bytes > this.#step.bytes) break;
      count++;
    }
    return this.#queue.splice(0, count);
  }

  /**
   * @param {Entry[]} entries
   * @param {AbortSignal} stop
   */
  async #one(entries, stop) {
    const files = await Promise.all(entries.map((entry) => this.#file(entry).then((file) => inMemory(file, BYTES))));
    if (stop.aborted) return;
    entries = entries.filter((entry, place) => files[place] || this.#fail(entry, { code: 'unreadable', message: '' }));
    if (entries.length === 0) return;
    try {
      const sent = files.filter((file) => file !== null);
      const { id, vectors, bad } = await this.#server.embedImages(sent, this.#model, stop);
      if (stop.aborted) return;
      /** @type {[Entry, Float32Array][]} */
      const found = [];
      entries.forEach((entry, place) => {
        const vector = vectors[place];
        if (vector) found.push([entry, vector]);
        else this.#fail(entry, bad.get(place) ?? { code: 'invalid_image', message: '' });
      });
      this.#counted.done += found.length;
      await this.#told.embedded(id, found);
      this.#report();
    } catch (error) {
      if (stop.aborted) return;
      if (error instanceof Unreachable) await this.#unanswered(entries, stop);
      else if (error instanceof Refused) await this.#refused(entries, error, stop);
      else throw error;
    }
  }

  /**
   * @param {Entry[]} entries
   * @param {Refused} error
   * @param {AbortSignal} stop
   */
  async #refused(entries, error, stop) {
    const { status, code, details, retryAfter } = error;
    const bad = new Map((details.images ?? []).map((/** @type {Reason & {index: number}} */ one) => [one.index, one]));
    if (status === 401) {
      this.#queue.unshift(...entries);
      await this.#hold('key', 0, () => new Promise((resolve) => (this.#unlock = () => resolve())));
    } else if (status === 429 || status === 503) {
      this.#queue.unshift(...entries);
      await this.#hold('busy', retryAfter || 2, () => pause(1000 * (retryAfter || 2), stop));
    } else if (code === 'too_many_images' && entries.length > 1) {
      this.#step.images = Math.max(1, Math.min(details.limit ?? entries.length, entries.length - 1));
      this.#queue.unshift(...entries);
    } else if (bad.size > 0) {
      this.#queue.unshift(...entries.filter((entry, place) => !bad.has(place) || this.#fail(entry, bad.get(place))));
    } else if (entries.length > 1 && (status === 413 || status === 408 || status >= 500)) {
      this.#halve(entries);
    } else {
      for (const entry of entries) this.#fail(entry, error);
    }
  }

  /**
   * No answer. The server may be gone, which is waited for; or the connection was cut for this body.
   * @param {Entry[]} entries
   * @param {AbortSignal} stop
   */
  async #unanswered(entries, stop) {
    const reached = await this.#server.health().then(() => true).catch(() => false);
    if (stop.aborted) return;
    if (!reached) {
      this.#queue.unshift(...entries);
      await this.#hold('gone', 0, () => this.#back(stop));
      return;
    }
    const left = entries.filter((entry) => {
      const tries = (this.#tries.get(entry.id) ?? 0) + 1;
      this.#tries.set(entry.id, tries);
      return tries < TRIES || entries.length > 1 || this.#fail(entry, { code: 'not_sent', message: '' });
    });
    this.#halve(left);
  }

  /** @param {AbortSignal} stop resolves once the server answers again */
  async #back(stop) {
    for (;;) {
      await pause(1000 * LOOK_AGAIN, stop);
      if (stop.aborted) return;
      const { status } = await this.#server.health().catch(() => ({ status: 'gone' }));
      if (status === 'healthy') return;
    }
  }

  /** @param {Entry[]} entries are sent again, fewer at once */
  #halve(entries) {
    this.#step.images = Math.max(1, Math.ceil(entries.length / 2));
    this.#queue.unshift(...entries);
  }

  /**
   * Waits, and makes the others wait: for what whoever came first has found.
   * @param {'busy' | 'gone' | 'key'} why
   * @param {number} seconds
   * @param {() => Promise<void>} until
   */
  async #hold(why, seconds, until) {
    if (!this.#holding) {
      this.#told.held(why, seconds);
      this.#holding = until().then(() => {
        this.#holding = this.#unlock = null;
        this.#told.held(null, 0);
      });
    }
    await this.#holding;
  }

  /**
   * @param {Entry} entry
   * @param {Reason | undefined} reason
   * @returns {false} so that it can be filtered out
   */
  #fail(entry, reason) {
    this.#counted.all--;
    this.#told.failed(entry, reason ?? { code: 'invalid_image', message: '' });
    this.#report();
    return false;
  }

  #report() {
    const { done, all, since } = this.#counted;
    const seconds = (performance.now() - since) / 1000;
    this.#told.progress({ done, all, perSecond: done > 0 && seconds > 0 ? done / seconds : 0 });
  }
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} stop
 * @returns {Promise<void>}
 */
function pause(milliseconds, stop) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    stop.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
