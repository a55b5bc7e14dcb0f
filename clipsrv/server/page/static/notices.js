/** Sentences about what is in the way, each until it is over. Knows nothing of their causes. */

export class Notices {
  #element;
  /** @type {Map<string, HTMLElement>} */
  #shown = new Map();

  /** @param {HTMLElement} element announced by screen readers */
  constructor(element) {
    this.#element = element;
  }

  /**
   * @param {string} cause of which one sentence is shown at a time
   * @param {string} text '' takes it away
   */
  say(cause, text) {
    const known = this.#shown.get(cause);
    if (known?.textContent === text) return;
    known?.remove();
    this.#shown.delete(cause);
    if (text === '') return;
    const notice = document.createElement('p');
    notice.className = `notice ${cause}`;
    notice.textContent = text;
    this.#shown.set(cause, notice);
    this.#element.append(notice);
  }
}
