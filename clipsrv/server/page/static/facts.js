/** One line about the server: model, device, size of its vectors, speed, health. Asks for its health from time to time. */

/** @typedef {import('./server.js').Models} Models */
/** @typedef {import('./server.js').Status | 'gone'} Health */

/** Seconds between two questions: while all is well, and while it is not. */
const CALM = 15;
const ANXIOUS = 2;

export class Facts {
  #element;
  #server;
  #words;
  #changed;
  #timer = 0;
  #line = '';
  #speed = '';
  /** @type {Health | null} */
  health = null;

  /**
   * @param {HTMLElement} element
   * @param {import('./server.js').Server} server
   * @param {import('./words.js').Words} words
   * @param {(health: Health, before: Health | null) => void} changed
   */
  constructor(element, server, words, changed) {
    this.#element = element;
    this.#server = server;
    this.#words = words;
    this.#changed = changed;
    document.addEventListener('visibilitychange', () => void (document.hidden || this.look()));
  }

  /**
   * @param {Models} models
   * @param {string} model
   */
  model({ details }, model) {
    const { device, precision, dimensions } = details[model] ?? {};
    const parts = [model, device, precision, dimensions === undefined ? '' : this.#words.dimensions(dimensions)];
    this.#line = parts.filter(Boolean).join(' · ');
    this.#draw();
  }

  /** @param {string} speed */
  speed(speed) {
    this.#speed = speed;
    this.#draw();
  }

  /** Asks now, and again after a while for as long as the page is seen. */
  async look() {
    clearTimeout(this.#timer);
    const { status } = await this.#server.health().catch(() => ({ status: /** @type {Health} */ ('gone') }));
    const before = this.health;
    this.health = status;
    this.#draw();
    if (status !== before) this.#changed(status, before);
    clearTimeout(this.#timer);
    if (!document.hidden) this.#timer = setTimeout(() => void this.look(), 1000 * (status === 'healthy' ? CALM : ANXIOUS));
  }

  #draw() {
    const health = document.createElement('span');
    health.className = `health ${this.health ?? ''}`;
    health.textContent = this.health ? this.#words.health[this.health] : '';
    const text = [this.#line, this.#speed].filter(Boolean).join(' · ');
    this.#element.replaceChildren(text ? `${text} · ` : '', health);
  }
}
