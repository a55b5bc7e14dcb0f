/** What outlives the page: images with their small copies and vectors, in the browser's IndexedDB. Knows nothing of the server. */

/** @typedef {{id: string, name: string, size: number, type: string, order: number, original: boolean}} Kept */

const NAME = 'clipsrv';
const TABLES = ['images', 'thumbnails', 'originals', 'vectors'];

export class Store {
  #database;

  /** @param {IDBDatabase} database */
  constructor(database) {
    this.#database = database;
  }

  /** @returns {Promise<Store | null>} null where the browser keeps nothing, as in some private windows. */
  static async open() {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => TABLES.forEach((table) => request.result.createObjectStore(table));
      return new Store(await done(request));
    } catch {
      return null;
    }
  }

  /** @returns {Promise<Kept[]>} in the order in which they came. */
  async images() {
    /** @type {Kept[]} */
    const found = await done(this.#read('images').getAll());
    return found.sort((a, b) => a.order - b.order);
  }

  /**
   * The vectors of one embedding id, by image.
   * @param {string} embeddingId
   * @returns {Promise<Map<string, Float32Array>>}
   */
  async vectors(embeddingId) {
    const table = this.#read('vectors');
    const range = IDBKeyRange.bound([embeddingId], [embeddingId, []]);
    const [keys, values] = await Promise.all([done(table.getAllKeys(range)), done(table.getAll(range))]);
    return new Map(keys.map((key, place) => [/** @type {string[]} */ (key)[1] ?? '', new Float32Array(values[place])]));
  }

  /** @param {string} id @returns {Promise<Blob | undefined>} */
  thumbnail(id) {
    return done(this.#read('thumbnails').get(id));
  }

  /** @param {string} id @returns {Promise<Blob | undefined>} */
  original(id) {
    return done(this.#read('originals').get(id));
  }

  /**
   * Keeps an image, all or nothing. QuotaExceededError if there is no room.
   * @param {Kept} image
   * @param {Blob | null} thumbnail
   * @param {Blob | null} original
   */
  async keep(image, thumbnail, original) {
    await this.#write(TABLES, (table) => {
      table('images').put(image, image.id);
      if (thumbnail) table('thumbnails').put(thumbnail, image.id);
      if (original) table('originals').put(original, image.id);
    });
  }

  /**
   * @param {string} embeddingId
   * @param {Iterable<readonly [string, Float32Array]>} vectors by image
   */
  async keepVectors(embeddingId, vectors) {
    await this.#write(['vectors'], (table) => {
      for (const [id, vector] of vectors) table('vectors').put(vector.slice().buffer, [embeddingId, id]);
    });
  }

  /** @param {string} id */
  async remove(id) {
    const keys = await done(this.#read('vectors').getAllKeys());
    await this.#write(TABLES, (table) => {
      for (const name of TABLES.slice(0, 3)) table(name).delete(id);
      for (const key of keys) if (/** @type {string[]} */ (key)[1] === id) table('vectors').delete(key);
    });
  }

  async clear() {
    await this.#write(TABLES, (table) => TABLES.forEach((name) => table(name).clear()));
  }

  /** @param {string} table */
  #read(table) {
    return this.#database.transaction(table).objectStore(table);
  }

  /**
   * @param {string[]} tables
   * @param {(table: (name: string) => IDBObjectStore) => void} change
   * @returns {Promise<void>}
   */
  #write(tables, change) {
    return new Promise((resolve, reject) => {
      const transaction = this.#database.transaction(tables, 'readwrite');
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error ?? new DOMException('', 'AbortError'));
      change((name) => transaction.objectStore(name));
    });
  }
}

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
