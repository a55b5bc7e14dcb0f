/** Which of the server's models is asked. Knows nothing of what for. */

/** @typedef {import('./server.js').Models} Models */
/** @typedef {import('./server.js').ModelFacts} ModelFacts */

export class ModelChoice {
  /** @type {Models} */
  all = { models: [], current: '', details: {} };
  #label;
  #select;

  /**
   * @param {HTMLElement} label around a select; hidden where there is no choice
   * @param {(model: string) => void} changed
   */
  constructor(label, changed) {
    this.#label = label;
    this.#select = /** @type {HTMLSelectElement} */ (label.querySelector('select'));
    this.#select.addEventListener('change', () => changed(this.chosen));
  }

  /** Whether the server has told of its models. */
  get known() {
    return this.all.current !== '';
  }

  get chosen() {
    return this.#select.value || this.all.current;
  }

  /** Whether it is the one that the server takes where none is named. */
  get isFirst() {
    return this.chosen === this.all.current;
  }

  /** @returns {ModelFacts} of the one chosen */
  get facts() {
    return this.all.details[this.chosen] ?? { converted: false };
  }

  /** @param {Models} models */
  offer(models) {
    this.all = models;
    const before = this.#select.value;
    // Only those that are served say whether they are loaded.
    const names = Object.keys(models.details).filter((name) => models.details[name]?.loaded !== undefined);
    this.#select.replaceChildren(...names.map((name) => new Option(name, name)));
    this.#select.value = names.includes(before) ? before : models.current;
    this.#label.hidden = names.length < 2;
  }
}
