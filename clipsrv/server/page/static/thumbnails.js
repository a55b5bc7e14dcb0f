/** Small copies of images, made in a worker so that the page never waits. Knows nothing of where they are kept. */

const WORKER = new URL('thumbnail-worker.js', import.meta.url).href;

export class Thumbnails {
  #worker = new Worker(/** @type {string} */ (trusted(WORKER)), { type: 'module' });
  /** @type {Map<number, (made: Blob | null) => void>} */
  #asked = new Map();
  #last = 0;

  constructor() {
    this.#worker.onmessage = ({ data: { number, made } }) => {
      this.#asked.get(number)?.(made);
      this.#asked.delete(number);
    };
    this.#worker.onerror = () => {
      for (const resolve of this.#asked.values()) resolve(null);
      this.#asked.clear();
    };
  }

  /**
   * @param {Blob} file
   * @returns {Promise<Blob | null>} null for what this browser cannot show, as most cannot TIFF and HEIC
   */
  of(file) {
    return new Promise((resolve) => {
      this.#asked.set(++this.#last, resolve);
      this.#worker.postMessage({ number: this.#last, file });
    });
  }
}

/**
 * The one script that may be run beside the page, where the browser asks for more than its address.
 * @param {string} address
 */
function trusted(address) {
  /** @type {any} */
  const browser = globalThis;
  return browser.trustedTypes?.createPolicy('worker', { createScriptURL: () => WORKER }).createScriptURL(address) ?? address;
}
