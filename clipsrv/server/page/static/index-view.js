/** The images of the server's index: one after another, or those nearest to what was asked. Knows nothing of what is dropped. */
import { Gallery } from './gallery.js';
import { Refused, Unreachable } from './server.js';

/** @typedef {import('./server.js').Indexed} Indexed */
/** @typedef {import('./server.js').FoundInIndex} FoundInIndex */
/** @typedef {{id: string, name: string, path: string, vector: true}} Entry of the index; it has a vector, which stays with the server */
/** @typedef {import('./gallery.js').Row<Entry>} Row */
/**
 * @typedef {object} Told
 * @property {(error: Refused | Unreachable) => void} failed
 * @property {(deed: import('./calls.js').Deed | null, found: FoundInIndex | null) => void} done what was asked; nulls: everything
 */

/** Images told of at once, and found at most. */
const PAGE = 200;
/** Small copies on their way at once. */
const AT_ONCE = 4;
/** Milliseconds after the last letter. */
const QUIET = 250;

export class IndexView {
  count = 0;
  #root;
  #title;
  #server;
  #words;
  #told;
  #gallery;
  /** @type {Row[]} */
  #rows = [];
  #whole = true;
  #paging = false;
  #turn = 0;
  #timer = 0;
  /** @type {string | null} */
  #chosen = null;
  #loading = 0;
  /** @type {(() => void)[]} */
  #waiting = [];

  /**
   * @param {HTMLElement} root
   * @param {import('./server.js').Server} server
   * @param {import('./words.js').Words} words
   * @param {Told} told
   */
  constructor(root, server, words, told) {
    this.#root = root;
    this.#title = /** @type {HTMLElement} */ (root.querySelector('h2'));
    this.#server = server;
    this.#words = words;
    this.#told = told;
    const [grid, end] = [/** @type {HTMLElement} */ (root.querySelector('ul')), /** @type {HTMLElement} */ (root.querySelector('.end'))];
    /** @type {Gallery<Entry>} */
    this.#gallery = new Gallery(grid, end, {
      thumbnail: ({ id }) => this.#thumbnail(id),
      choose: (entry) => this.like(entry),
      more: () => void (this.#whole && !this.#paging && this.#rows.length < this.count && this.#page()),
      words,
    });
  }

  /** Whether the server has an index with images. */
  async open() {
    if (this.count > 0) return true;
    try {
      this.count = (await this.#server.indexed(0, 0)).count;
    } catch (error) {
      if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
      return false;
    }
    return this.count > 0;
  }

  /** @param {boolean} shown */
  show(shown) {
    this.#root.hidden = !shown;
  }

  /**
   * @param {string} text '' for everything
   * @param {boolean} atOnce else a moment after the last letter
   */
  ask(text, atOnce) {
    clearTimeout(this.#timer);
    this.#turn++;
    if (text === '') return void this.all();
    this.#timer = setTimeout(
      () => void this.#find(null, this.#words.byText(text), { kind: 'text', text, index: true }, this.#server.search(text, PAGE)),
      atOnce ? 0 : QUIET,
    );
  }

  /** @param {Entry} entry the one chosen already: back to everything */
  like(entry) {
    clearTimeout(this.#timer);
    if (entry.id === this.#chosen) return void this.all();
    const deed = /** @type {const} */ ({ kind: 'image', name: entry.path, index: true });
    void this.#find(entry.id, this.#words.byImage(entry.name), deed, this.#server.nearIndexed(entry.id, PAGE));
  }

  /** Everything, in the order of the index. */
  async all() {
    clearTimeout(this.#timer);
    this.#turn++;
    this.#rows = [];
    this.#whole = true;
    this.#chosen = null;
    this.#title.textContent = this.#words.indexed(this.count);
    this.#told.done(null, null);
    await this.#page(true);
  }

  async #page(anew = false) {
    this.#paging = true;
    const page = await this.#answer(++this.#turn, this.#server.indexed(this.#rows.length, PAGE));
    this.#paging = false;
    if (!page) return;
    this.count = page.count;
    this.#rows.push(...page.items.map((item) => row(item)));
    this.#gallery.show(this.#rows, null, anew);
  }

  /**
   * @param {string | null} chosen
   * @param {string} title
   * @param {import('./calls.js').Deed} deed
   * @param {Promise<FoundInIndex>} asked
   */
  async #find(chosen, title, deed, asked) {
    const found = await this.#answer(++this.#turn, asked);
    if (!found) return;
    this.#whole = false;
    this.#chosen = chosen;
    this.#rows = found.results.map((item) => row(item));
    this.#title.textContent = title;
    this.#gallery.show(this.#rows, chosen, true);
    scrollTo({ top: 0 });
    this.#told.done(deed, found);
  }

  /**
   * What was asked, unless something else has been asked meanwhile or there is no answer.
   * @template T
   * @param {number} turn
   * @param {Promise<T>} asked
   * @returns {Promise<T | null>}
   */
  async #answer(turn, asked) {
    try {
      const found = await asked;
      return turn === this.#turn ? found : null;
    } catch (error) {
      if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
      if (turn === this.#turn) this.#told.failed(error);
      return null;
    }
  }

  /**
   * @param {string} id
   * @returns {Promise<Blob | null>} null if the file is no longer what was indexed
   */
  async #thumbnail(id) {
    if (this.#loading >= AT_ONCE) await new Promise((/** @type {(value: void) => void} */ resolve) => this.#waiting.push(resolve));
    else this.#loading++;
    try {
      for (;;) {
        try {
          return await this.#server.indexedThumbnail(id);
        } catch (error) {
          if (!(error instanceof Refused && error.status === 429)) return null;
          await new Promise((resolve) => setTimeout(resolve, 1000 * (error.retryAfter || 1)));
        }
      }
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#loading--;
    }
  }
}

/**
 * @param {Indexed} item
 * @returns {Row}
 */
function row({ id, path, score }) {
  return { entry: { id, path, name: path.split(/[\\/]/).at(-1) || id, vector: true }, score: score ?? null };
}
