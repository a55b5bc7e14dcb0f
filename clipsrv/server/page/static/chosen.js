/** The image that was clicked: seen larger, scored against labels, removed. */
import { placeholder } from './gallery.js';

/** @typedef {import('./album.js').Entry} Entry */
/** @typedef {import('./server.js').Classified} Classified */
/**
 * @typedef {object} Doing
 * @property {(entry: Entry) => Promise<Blob | null>} thumbnail
 * @property {(entry: Entry) => Promise<Blob | null>} file
 * @property {(entry: Entry, labels: string[], template: string) => Promise<Classified | null>} classify null: it was told why not
 * @property {(entry: Entry) => void} remove
 * @property {() => void} close
 */

export class Chosen {
  #root;
  #words;
  #doing;
  /** @type {Entry | null} */
  #entry = null;
  #url = '';

  /**
   * @param {HTMLElement} root
   * @param {import('./words.js').Words} words
   * @param {Doing} doing
   */
  constructor(root, words, doing) {
    this.#root = root;
    this.#words = words;
    this.#doing = doing;
    this.#input('labels').placeholder = words.labelsHint;
    this.#at('chosen-close').addEventListener('click', () => doing.close());
    this.#at('chosen-remove').addEventListener('click', () => this.#entry && doing.remove(this.#entry));
    this.#at('labels-form').addEventListener('submit', (event) => {
      event.preventDefault();
      void this.#score();
    });
  }

  /** @param {boolean} reads whether the model reads text, without which there are no labels */
  text(reads) {
    this.#at('labels-form').hidden = !reads;
  }

  /** @param {Entry | null} entry */
  async show(entry) {
    if (entry === this.#entry) return;
    this.#entry = entry;
    this.#root.hidden = entry === null;
    URL.revokeObjectURL(this.#url);
    this.#url = '';
    this.#forget();
    if (!entry) return;
    this.#at('chosen-name').textContent = entry.name;
    this.#at('chosen-about').textContent = `${(entry.size / 1024).toLocaleString(this.#words.language, { maximumFractionDigits: 0 })} KB`;
    const [image, kind] = [/** @type {HTMLImageElement} */ (this.#at('chosen-image')), this.#at('chosen-kind')];
    image.hidden = true;
    kind.hidden = true;
    const small = await this.#doing.thumbnail(entry);
    const whole = small && (await this.#doing.file(entry));
    if (this.#entry !== entry) return;
    if (small) {
      this.#url = URL.createObjectURL(whole ?? small);
      image.src = this.#url;
      image.hidden = false;
    } else {
      kind.textContent = placeholder(entry).textContent;
      kind.hidden = false;
    }
  }

  async #score() {
    const labels = [...new Set(this.#input('labels').value.split(/[,、，]/).map((label) => label.trim()).filter(Boolean))];
    const entry = this.#entry;
    if (!entry || labels.length === 0) return this.#input('labels').focus();
    this.#forget();
    const answer = await this.#doing.classify(entry, labels, this.#input('template').value);
    if (!answer || this.#entry !== entry) return;
    this.#at('scores').replaceChildren(...answer.labels.map((one) => line(one, this.#words.similarity)));
    const unread = answer.unknown_script?.length ? ` ${this.#words.unreadLabels(answer.unknown_script.join(', '))}` : '';
    this.#at('scores-about').textContent = this.#words[answer.scoring] + unread;
  }

  #forget() {
    this.#at('scores').replaceChildren();
    this.#at('scores-about').textContent = '';
  }

  /** @param {string} id */
  #at(id) {
    return /** @type {HTMLElement} */ (this.#root.querySelector(`#${id}`));
  }

  /** @param {string} id */
  #input(id) {
    return /** @type {HTMLInputElement} */ (this.#at(id));
  }
}

/**
 * @param {import('./server.js').Score} score
 * @param {string} cosine what the last figure is called
 */
function line({ label, score, similarity }, cosine) {
  const item = document.createElement('li');
  const bar = text('share', '');
  bar.style.setProperty('--share', String(score));
  const figure = text('cosine', '');
  figure.append(text('unseen', `${cosine} `), similarity.toFixed(3));
  item.append(text('label', label), bar, text('value', `${(100 * score).toFixed(1)} %`), figure);
  return item;
}

/**
 * @param {string} kind
 * @param {string} content
 */
function text(kind, content) {
  const element = document.createElement('span');
  element.className = kind;
  element.textContent = content;
  return element;
}
