/** The page around the grid of what was dropped: its title, its count, and whether there is anything. */

/** @typedef {import('./search.js').Query} Query */

export class Stage {
  #words;

  /** @param {import('./words.js').Words} words */
  constructor(words) {
    this.#words = words;
  }

  /**
   * @param {number} count of images
   * @param {Query} query
   * @param {boolean} away something else is looked at
   */
  show(count, query, away) {
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
