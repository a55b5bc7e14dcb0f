/** What was dropped, put in order: the grid, its title, its count, and whether there is anything. */
import { ranked } from './ranking.js';

/** @typedef {import('./album.js').Entry} Entry */
/** @typedef {import('./search.js').Query} Query */

/** Milliseconds in which changes are gathered. */
const GATHERED = 100;

export class Stage {
  #words;
  #parts;
  #anew = false;
  #timer = 0;

  /**
   * @param {import('./words.js').Words} words
   * @param {object} parts
   * @param {import('./gallery.js').Gallery<Entry>} parts.gallery
   * @param {import('./album.js').Album} parts.album
   * @param {import('./search.js').Search} parts.search
   * @param {() => boolean} parts.away whether something else is looked at
   * @param {(text: string) => void} parts.say
   */
  constructor(words, parts) {
    this.#words = words;
    this.#parts = parts;
  }

  /**
   * Puts all in order, once for whatever changes in the same moment.
   * @param {boolean} [anew] another question: looked at from the beginning
   */
  draw(anew = false) {
    this.#anew ||= anew;
    this.#timer ||= setTimeout(() => this.#draw(), GATHERED);
  }

  #draw() {
    this.#timer = 0;
    const { gallery, album, search, away, say } = this.#parts;
    const { query, vector } = search;
    const rows = vector ? ranked(album.entries, vector) : album.entries.map((entry) => ({ entry, score: null }));
    gallery.show(rows, query?.kind === 'image' ? query.entry.id : null, this.#anew);
    const first = rows[query?.kind === 'image' ? 1 : 0] ?? rows[0];
    if (this.#anew && vector && first) say(this.#words.told(rows.length, first.entry.name));
    this.#anew = false;
    this.#frame(album.count, query, away());
  }

  /**
   * @param {number} count of images
   * @param {Query} query
   * @param {boolean} away
   */
  #frame(count, query, away) {
    const { byText, byImage, allImages, images } = this.#words;
    at('results-title').textContent = query?.kind === 'text' ? byText(query.text) : query ? byImage(query.entry.name) : allImages;
    at('results').hidden = count === 0 || away;
    at('empty').hidden = count > 0 || away;
    at('clear').hidden = count === 0;
    at('count').textContent = count > 0 ? images(count) : '';
  }

  /**
   * Asks whether all is to be removed.
   * @param {number} count
   * @param {() => void} yes
   */
  confirm(count, yes) {
    const dialog = /** @type {HTMLDialogElement} */ (at('confirm'));
    at('confirm-text').textContent = this.#words.clearQuestion(count);
    dialog.addEventListener('close', () => dialog.returnValue === 'yes' && yes(), { once: true });
    dialog.returnValue = '';
    dialog.showModal();
  }
}

/** @param {string} id */
function at(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}
