/** The API key: asked for when the server wants one, and kept for as long as the tab is open. Never part of an address. */

const NAME = 'clipsrv-key';

export class KeyForm {
  #form;
  #input;
  #forget;
  #memory = '';

  /**
   * @param {HTMLElement} form
   * @param {() => void} changed
   */
  constructor(form, changed) {
    this.#form = form;
    this.#input = /** @type {HTMLInputElement} */ (form.querySelector('input'));
    this.#forget = /** @type {HTMLElement} */ (form.querySelector('#forget-key'));
    this.#input.value = this.key;
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#set(this.#input.value.trim());
      changed();
    });
    this.#forget.addEventListener('click', () => {
      this.#set('');
      this.#input.value = '';
      this.#forget.hidden = true;
      changed();
    });
  }

  get key() {
    try {
      return sessionStorage.getItem(NAME) ?? this.#memory;
    } catch {
      return this.#memory;
    }
  }

  /** The server wants one, or another. */
  ask() {
    this.#form.hidden = false;
    this.#input.focus();
  }

  /** The server answers: with this key, or without any. */
  accepted() {
    this.#form.hidden = this.key === '';
    this.#forget.hidden = this.key === '';
  }

  /** @param {string} key */
  #set(key) {
    this.#memory = key;
    try {
      if (key) sessionStorage.setItem(NAME, key);
      else sessionStorage.removeItem(NAME);
    } catch {
      // It stays in memory.
    }
  }
}
