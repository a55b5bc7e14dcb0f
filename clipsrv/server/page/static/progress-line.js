/** How far the images are, said to eyes and ears, and the files that gave no vector. */

export class ProgressLine {
  #root;
  #told;
  #words;
  #failed = 0;
  #busy = false;

  /**
   * @param {HTMLElement} root
   * @param {HTMLElement} told where screen readers listen
   * @param {import('./words.js').Words} words
   */
  constructor(root, told, words) {
    this.#root = root;
    this.#told = told;
    this.#words = words;
  }

  /** @param {import('./intake.js').Progress} now */
  show({ done, all, perSecond }) {
    const busy = done < all;
    this.#root.hidden = !busy;
    const bar = /** @type {HTMLProgressElement} */ (this.#root.querySelector('progress'));
    bar.max = Math.max(1, all);
    bar.value = done;
    const speed = perSecond > 0 ? this.#words.speed(perSecond) : '';
    const text = /** @type {HTMLElement} */ (this.#root.querySelector('p'));
    text.textContent = this.#words.embedding(done, all, speed);
    if (this.#busy && !busy && done > 0) this.say(this.#words.embedded(done, speed));
    this.#busy = busy;
  }

  /** New images: what failed before is no longer told. */
  begin() {
    this.#failed = 0;
    this.#at('failures').hidden = true;
    this.#at('failures-list').replaceChildren();
  }

  /**
   * @param {string} name
   * @param {string} reason
   */
  fail(name, reason) {
    const item = document.createElement('li');
    const file = document.createElement('strong');
    file.textContent = name;
    item.append(file, ` ${reason}`);
    this.#at('failures-list').append(item);
    this.#at('failures-title').textContent = this.#words.failed(++this.#failed);
    this.#at('failures').hidden = false;
  }

  /** @param {string} text */
  say(text) {
    this.#told.textContent = text;
  }

  /** @param {string} id */
  #at(id) {
    return /** @type {HTMLElement} */ (this.#root.ownerDocument.getElementById(id));
  }
}
