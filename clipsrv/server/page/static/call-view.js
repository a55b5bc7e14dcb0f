/** Shows and copies the call of what was just done, in the language chosen. */
import { callsOf, LANGUAGES } from './calls.js';

/** @typedef {import('./calls.js').Language} Language */

export class CallView {
  #root;
  #code;
  #copy;
  #words;
  /** @type {Record<Language, string> | null} */
  #calls = null;
  /** @type {Language} */
  #language = 'curl';

  /**
   * @param {HTMLElement} root
   * @param {import('./words.js').Words} words
   */
  constructor(root, words) {
    this.#root = root;
    this.#words = words;
    this.#code = /** @type {HTMLElement} */ (root.querySelector('#code'));
    this.#copy = /** @type {HTMLButtonElement} */ (root.querySelector('#copy'));
    for (const language of LANGUAGES) this.#tab(language).addEventListener('click', () => this.#choose(language));
    root.querySelector('[role=tablist]')?.addEventListener('keydown', (event) => this.#move(/** @type {KeyboardEvent} */ (event)));
    this.#copy.addEventListener('click', () => void this.#put());
  }

  /**
   * @param {import('./calls.js').Deed} deed
   * @param {import('./calls.js').Place} place
   */
  show(deed, place) {
    this.#calls = callsOf(deed, place);
    this.#root.hidden = false;
    this.#draw();
  }

  hide() {
    this.#root.hidden = true;
  }

  /** @param {Language} language */
  #choose(language) {
    this.#language = language;
    this.#draw();
  }

  #draw() {
    for (const language of LANGUAGES) {
      const tab = this.#tab(language);
      tab.setAttribute('aria-selected', String(language === this.#language));
      tab.tabIndex = language === this.#language ? 0 : -1;
    }
    this.#code.setAttribute('aria-labelledby', `tab-${this.#language}`);
    const code = document.createElement('code');
    code.textContent = this.#calls?.[this.#language] ?? '';
    this.#code.replaceChildren(code);
    this.#copy.textContent = this.#words.copy;
  }

  /** @param {KeyboardEvent} event */
  #move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined || !(event.target instanceof HTMLElement) || event.target.role !== 'tab') return;
    const next = LANGUAGES[(LANGUAGES.indexOf(this.#language) + step + LANGUAGES.length) % LANGUAGES.length];
    if (next === undefined) return;
    this.#choose(next);
    this.#tab(next).focus();
  }

  async #put() {
    const text = this.#calls?.[this.#language] ?? '';
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Not to be had over plain HTTP from another machine: there the text is selected, and copied in the old way.
      getSelection()?.selectAllChildren(this.#code);
      if (!document.execCommand('copy')) return;
    }
    this.#copy.textContent = this.#words.copied;
  }

  /** @param {Language} language */
  #tab(language) {
    return /** @type {HTMLButtonElement} */ (this.#root.querySelector(`#tab-${language}`));
  }
}
