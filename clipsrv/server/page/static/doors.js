/** The ways by which images come in: dropped, pasted, chosen as files or as a folder. */
import { chosen, dropped, isImage } from './files.js';

/** @typedef {import('./files.js').Found} Found */

export class Doors {
  #take;

  /** @param {(files: Found[], leftOut: string[]) => void} take `leftOut` are the paths of what is no image */
  constructor(take) {
    this.#take = take;
    this.#button('add-images', 'images-input');
    this.#button('add-folder', 'folder-input');
    const veil = /** @type {HTMLElement} */ (document.getElementById('drop'));
    const files = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes('Files') === true;
    document.addEventListener('dragover', (event) => {
      if (!files(event)) return;
      event.preventDefault(); // else the browser would leave the page for the file
      veil.hidden = false;
    });
    document.addEventListener('dragleave', (event) => {
      if (event.relatedTarget === null) veil.hidden = true;
    });
    document.addEventListener('drop', (event) => {
      veil.hidden = true;
      if (!files(event) || !event.dataTransfer) return;
      event.preventDefault();
      void dropped(event.dataTransfer).then((found) => this.#came(found));
    });
    document.addEventListener('paste', (event) => {
      const found = chosen(event.clipboardData?.files ?? null);
      if (found.length > 0) this.#came(found);
    });
  }

  /**
   * @param {string} button
   * @param {string} input
   */
  #button(button, input) {
    const element = /** @type {HTMLInputElement} */ (document.getElementById(input));
    document.getElementById(button)?.addEventListener('click', () => element.click());
    element.addEventListener('change', () => {
      this.#came(chosen(element.files));
      element.value = ''; // so that the same can be chosen again
    });
  }

  /** @param {Found[]} found */
  #came(found) {
    const leftOut = found.filter(({ file }) => !isImage(file));
    this.#take(found.filter(({ file }) => isImage(file)), leftOut.map(({ path }) => path));
  }
}
