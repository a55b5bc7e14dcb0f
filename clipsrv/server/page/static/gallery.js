/** The grid of images: as many cells as are looked at, moved through by keys. Knows nothing of why images stand in this order. */

/** @typedef {{id: string, name: string, vector: unknown}} Shown what an image must have to be shown; its vector is null until it has one */
/** @typedef {import('./words.js').Words} Words */
/**
 * @template {Shown} T
 * @typedef {{entry: T, score: number | null}} Row
 */

/** Cells made at once; more come when the end of these is near. */
const CHUNK = 60;
/** Pixels below what is seen at which its end is near. */
const AHEAD = 1000;

/** @template {Shown} T */
export class Gallery {
  #grid;
  #end;
  #thumbnail;
  #more;
  #words;
  /** @type {Row<T>[]} */
  #rows = [];
  #shown = CHUNK;
  /** @type {string | null} */
  #chosen = null;
  /** @type {Map<string, Cell>} */
  #cells = new Map();

  /**
   * @param {HTMLElement} grid
   * @param {HTMLElement} end stands after the grid: where it comes near, more cells are made
   * @param {object} collaborators
   * @param {(entry: T) => Promise<Blob | null>} collaborators.thumbnail
   * @param {(entry: T) => void} collaborators.choose
   * @param {() => void} [collaborators.more] the end of the rows is near
   * @param {Words} collaborators.words
   */
  constructor(grid, end, { thumbnail, choose, more, words }) {
    this.#grid = grid;
    this.#end = end;
    this.#thumbnail = thumbnail;
    this.#more = more;
    this.#words = words;
    new IntersectionObserver(([seen]) => seen?.isIntersecting && this.#goOn(), { rootMargin: `${AHEAD}px` }).observe(end);
    grid.addEventListener('click', (event) => {
      const entry = this.#of(event.target);
      if (entry) choose(entry);
    });
    grid.addEventListener('keydown', (event) => this.#move(event));
    grid.addEventListener('focusin', (event) => {
      for (const cell of this.#cells.values()) cell.reach(cell.button === event.target);
    });
  }

  /**
   * @param {Row<T>[]} rows
   * @param {string | null} chosen the image the others are compared with
   * @param {boolean} anew another question: looked at from the beginning
   */
  show(rows, chosen, anew) {
    this.#rows = rows;
    this.#chosen = chosen;
    if (anew) this.#shown = CHUNK;
    else requestAnimationFrame(() => this.#goOn()); // rows may have come to where the end is in sight
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
    const elements = rows.map((row, place) => this.#cell(row, place).element);
    const here = this.#grid.children;
    const kept = Math.min(elements.length, here.length);
    if (here.length > elements.length || elements.slice(0, kept).some((element, place) => element !== here[place])) {
      this.#grid.replaceChildren(...elements);
    } else {
      this.#grid.append(...elements.slice(kept)); // those that are there need not be laid out again
    }
    if (focused !== undefined) this.#cells.get(focused)?.button.focus({ preventScroll: true });
    const reachable = this.#grid.querySelector('button[tabindex="0"]');
    if (!reachable && rows[0]) this.#cells.get(rows[0].entry.id)?.reach(true);
  }

  /**
   * @param {Row<T>} row
   * @param {number} place
   */
  #cell({ entry, score }, place) {
    let cell = this.#cells.get(entry.id);
    if (!cell) {
      cell = new Cell(entry, this.#thumbnail(entry));
      this.#cells.set(entry.id, cell);
    }
    cell.say(score, entry.vector === null, this.#words);
    cell.stand(place + 1, this.#rows.length, entry.id === this.#chosen);
    return cell;
  }

  /** Makes more cells for as long as the end of them is near. */
  #goOn() {
    if (this.#end.getBoundingClientRect().top > innerHeight + AHEAD || this.#grid.offsetParent === null) return;
    if (this.#shown < this.#rows.length) {
      this.#shown += CHUNK;
      this.#draw();
      requestAnimationFrame(() => this.#goOn()); // still in sight, the end would not be told of again
    } else if (this.#rows.length > 0) {
      this.#more?.();
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

  /** @param {EventTarget | null} target @returns {T | undefined} */
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
  #said = '';
  #stands = '';

  /**
   * @param {Shown} entry
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
    const text = score === null ? '' : score.toFixed(3);
    if (this.#said === text + waiting) return;
    this.#said = text + waiting;
    const unseen = document.createElement('span');
    unseen.className = 'unseen';
    unseen.textContent = `${words.similarity} `;
    this.#score.replaceChildren(...(text ? [unseen, text] : []));
    this.element.classList.toggle('waiting', waiting);
    this.button.setAttribute('aria-description', waiting ? words.waiting : '');
  }

  /**
   * @param {number} place from 1
   * @param {number} all
   * @param {boolean} chosen
   */
  stand(place, all, chosen) {
    const stands = `${place} ${all} ${chosen}`;
    if (this.#stands === stands) return;
    this.#stands = stands;
    this.element.setAttribute('aria-posinset', String(place));
    this.element.setAttribute('aria-setsize', String(all));
    this.button.setAttribute('aria-pressed', String(chosen));
  }

  /** @param {boolean} reachable whether Tab comes to it */
  reach(reachable) {
    const index = reachable ? 0 : -1;
    if (this.button.tabIndex !== index) this.button.tabIndex = index;
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
