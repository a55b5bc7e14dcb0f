/** Which images are looked at: those of the server's index, or those dropped here. */

/** @typedef {'index' | 'here'} Source */

export class Sources {
  /** @type {Source | null} null as long as nobody knows whether there is an index */
  current = null;
  #root;
  #changed;

  /**
   * @param {HTMLElement} root hidden where there is no choice
   * @param {(source: Source) => void} changed
   */
  constructor(root, changed) {
    this.#root = root;
    this.#changed = changed;
    for (const source of /** @type {const} */ (['index', 'here'])) this.#button(source).addEventListener('click', () => this.look(source));
  }

  get ofIndex() {
    return this.current === 'index';
  }

  /**
   * @param {boolean} index whether the server has one
   * @param {Source} first what is looked at if nothing else has been chosen
   */
  offer(index, first) {
    this.#root.hidden = !index;
    if (index && this.current === null) this.look(first);
    else if (!index && this.current !== null) this.look('here');
    this.current ??= 'here'; // without an index nothing changes by that
  }

  /** @param {Source} source */
  look(source) {
    if (source === this.current) return;
    this.current = source;
    for (const one of /** @type {const} */ (['index', 'here'])) this.#button(one).setAttribute('aria-pressed', String(one === source));
    this.#changed(source);
  }

  /** @param {Source} source */
  #button(source) {
    return /** @type {HTMLElement} */ (this.#root.querySelector(`#source-${source}`));
  }
}
