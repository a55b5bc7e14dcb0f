/** The grid of images: as many cells as are looked at, moved through by keys. Knows nothing of why images stand in this order. */

/** @typedef {import('./album.js').Entry} Entry */
/** @typedef {import('./words.js').Words} Words */
/** @typedef {{entry: Entry, score: number | null}} Row */

/** Cells made at once; more come when the end of these is near. */
const CHUNK = 120;

export class Gallery {
  #grid;
  #thumbnail;
  #words;
  /** @type {Row[]} */
  #rows = [];
  #shown = CHUNK;
  /** @type {string | null} */
  #chosen = null;
  /** @type {Map<string, Cell>} */
  #cells = new Map();

  /**
   * @param {HTMLElement} grid
   * @param {HTMLElement} end stands after the grid: where it comes near, more cells are made
   * @param {{thumbnail: (entry: Entry) => Promise<Blob | null>, choose: (entry: Entry) => void, words: Words}} collaborators
   */
  constructor(grid, end, { thumbnail, choose, words }) {
    this.#grid = grid;
    this.#thumbnail = thumbnail;
    this.#words = words;
    new IntersectionObserver(
      ([seen]) => {
        if (seen?.isIntersecting && this.#shown < this.#rows.length) {
          this.#shown += CHUNK;
          this.#draw();
          // Still in sight, it would not be told of again.
          requestAnimationFrame(() => this.#rows.length > this.#shown && this.#again(end));
        }
      },
      { rootMargin: '1000px' },
    ).observe(end);
    grid.addEventListener('click', (event) => {
      const entry = this.#of(event.target);
      if (entry) choose(entry);
    });
    grid.addEventListener('keydown', (event) => this.#move(event));
    grid.addEventListener('focusin', (event) => {
      for (const cell of this.#cells.values()) cell.button.tabIndex = cell.button === event.target ? 0 : -1;
    });
  }

  /**
   * @param {Row[]} rows
   * @param {string | null} chosen the image the others are compared with
   * @param {boolean} anew another question: looked at from the beginning
   */
  show(rows, chosen, anew) {
    this.#rows = rows;
    this.#chosen = chosen;
    if (anew) this.#shown = CHUNK;
    const here = new Set(rows.map(({ entry }) => entry.id));
    for (const [id, cell] of this.#cells) {
      if (!here.has(id)) {
        cell.close();
        this.#cells.delete(id);
      }
    }
    this.#draw();
  }

  #draw() {
    const rows = this.#rows.slice(0, this.#shown);
    const focused = this.#of(document.activeElement)?.id;
    const elements = rows.map(({ entry, score }, place) => {
      let cell = this.#cells.get(entry.id);
      if (!cell) {
        cell = new Cell(entry, this.#thumbnail(entry));
        this.#cells.set(entry.id, cell);
      }
      cell.say(score, entry.vector === null, this.#words);
      cell.button.setAttribute('aria-pressed', String(entry.id === this.#chosen));
      cell.element.setAttribute('aria-posinset', String(place + 1));
      cell.element.setAttribute('aria-setsize', String(this.#rows.length));
      return cell.element;
    });
    const same = elements.length === this.#grid.children.length && elements.every((element, i) => element === this.#grid.children[i]);
    if (!same) this.#grid.replaceChildren(...elements);
    if (focused !== undefined) this.#cells.get(focused)?.button.focus({ preventScroll: true });
    const reachable = [...this.#cells.values()].some(({ button, element }) => button.tabIndex === 0 && element.isConnected);
    if (!reachable && rows[0]) this.#cells.get(rows[0].entry.id)?.button.setAttribute('tabindex', '0');
  }

  /** @param {HTMLElement} end */
  #again(end) {
    const { top } = end.getBoundingClientRect();
    if (top < innerHeight + 1000) {
      this.#shown += CHUNK;
      this.#draw();
      requestAnimationFrame(() => this.#rows.length > this.#shown && this.#again(end));
    }
  }

  /** @param {KeyboardEvent} event */
  #move(event) {
    const buttons = [...this.#grid.querySelectorAll('button')];
    const here = buttons.findIndex((button) => button === document.activeElement);
    if (here < 0) return;
    const columns = getComputedStyle(this.#grid).gridTemplateColumns.split(' ').length;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -here, End: buttons.length - 1 - here };
    const step = steps[/** @type {keyof typeof steps} */ (event.key)];
    if (step === undefined) return;
    event.preventDefault();
    buttons[here + step]?.focus();
  }

  /** @param {EventTarget | null} target @returns {Entry | undefined} */
  #of(target) {
    const element = target instanceof Element ? target.closest('li') : null;
    return element ? this.#rows.find(({ entry }) => this.#cells.get(entry.id)?.element === element)?.entry : undefined;
  }
}

/** One image of the grid: its small copy, its name, its likeness. */
class Cell {
  element = document.createElement('li');
  button = document.createElement('button');
  #score = document.createElement('span');
  #url = '';

  /**
   * @param {Entry} entry
   * @param {Promise<Blob | null>} thumbnail
   */
  constructor(entry, thumbnail) {
    const [frame, name] = [document.createElement('span'), document.createElement('span')];
    frame.className = 'frame';
    name.className = 'name';
    this.#score.className = 'score';
    name.textContent = entry.name;
    this.button.type = 'button';
    this.button.tabIndex = -1;
    this.button.title = entry.name;
    this.button.append(frame, name, this.#score);
    this.element.append(this.button);
    void thumbnail.then((found) => {
      if (found) {
        const image = document.createElement('img');
        image.alt = '';
        image.decoding = 'async';
        image.draggable = false; // dropped on the page it would come in once more
        image.src = this.#url = URL.createObjectURL(found);
        frame.replaceChildren(image);
      } else {
        frame.replaceChildren(placeholder(entry));
      }
    });
  }

  /**
   * @param {number | null} score
   * @param {boolean} waiting
   * @param {Words} words
   */
  say(score, waiting, words) {
    const unseen = document.createElement('span');
    unseen.className = 'unseen';
    unseen.textContent = `${words.similarity} `;
    this.#score.replaceChildren(...(score === null ? [] : [unseen, score.toFixed(3)]));
    this.element.classList.toggle('waiting', waiting);
    this.button.setAttribute('aria-description', waiting ? words.waiting : '');
  }

  close() {
    URL.revokeObjectURL(this.#url);
  }
}

/**
 * What stands for an image that the browser cannot show: its kind.
 * @param {{name: string}} entry
 */
export function placeholder({ name }) {
  const kind = document.createElement('span');
  kind.className = 'kind';
  kind.textContent = name.includes('.') ? name.slice(name.lastIndexOf('.') + 1).toUpperCase().slice(0, 5) : '?';
  return kind;
}
