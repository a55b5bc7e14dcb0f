/** The images of this page: those in memory, and of them what the browser keeps. Knows nothing of the server or of how they are shown. */
/** @typedef {import('./store.js').Store} Store */
/**
 * @typedef {object} Entry one image
 * @property {string} id
 * @property {string} name
 * @property {number} size in bytes
 * @property {string} type
 * @property {number} order
 * @property {boolean} original whether the browser keeps the image itself
 * @property {File | null} file the image itself, as long as the page is open
 * @property {Promise<Blob | null> | null} thumbnail its small copy, null for what no browser shows; not asked for yet
 * @property {Float32Array | null} vector of the model in use
 */

/** Bytes of images themselves that are kept; of more, their small copies and vectors only. */
const ORIGINALS = 2 ** 30;
/** Files taken in at once. */
const TAKEN = 200;

export class Album {
  /** @type {Map<string, Entry>} */
  #entries = new Map();
  #store;
  #thumbnails;
  #told;
  #order = 0;
  #originals = 0;
  embeddingId = '';

  /**
   * @param {Store | null} store
   * @param {{of: (file: Blob) => Promise<Blob | null>}} thumbnails
   * @param {(what: 'full' | 'noStorage') => void} told
   */
  constructor(store, thumbnails, told) {
    this.#store = store;
    this.#thumbnails = thumbnails;
    this.#told = told;
  }

  /** @returns {Entry[]} */
  get entries() {
    return [...this.#entries.values()];
  }

  get count() {
    return this.#entries.size;
  }

  /** @param {string} id */
  get(id) {
    return this.#entries.get(id);
  }

  /** Brings back what an earlier visit has left. */
  async load() {
    for (const kept of (await this.#store?.images().catch(() => [])) ?? []) {
      this.#entries.set(kept.id, { ...kept, file: null, thumbnail: null, vector: null });
      this.#order = kept.order;
      if (kept.original) this.#originals += kept.size;
    }
  }

  /**
   * From now on vectors are those of `embeddingId`.
   * @param {string} embeddingId
   */
  async use(embeddingId) {
    this.embeddingId = embeddingId;
    const known = (await this.#store?.vectors(embeddingId).catch(() => null)) ?? new Map();
    if (this.embeddingId !== embeddingId) return;
    for (const entry of this.#entries.values()) entry.vector = known.get(entry.id) ?? null;
  }

  /**
   * Takes in the files that are not here yet. The same name, size and time of change are the same image.
   * @param {readonly {file: File, path: string}[]} found
   * @returns {Promise<Entry[]>} the new ones
   */
  async add(found) {
    /** @type {Entry[]} */
    const added = [];
    for (let first = 0; first < found.length; first += TAKEN) {
      if (first > 0) await new Promise((resolve) => setTimeout(resolve)); // the page lives on while thousands come in
      this.#add(found.slice(first, first + TAKEN), added);
    }
    return added;
  }

  /**
   * @param {readonly {file: File, path: string}[]} found
   * @param {Entry[]} added gets the new ones
   */
  #add(found, added) {
    for (const { file, path } of found) {
      const id = `${path}|${file.size}|${file.lastModified}`;
      const known = this.#entries.get(id);
      if (known) {
        known.file = file;
        continue;
      }
      this.#order = Math.max(this.#order + 1, Date.now());
      const entry = { id, name: file.name, size: file.size, type: file.type, order: this.#order, original: false, file, vector: null };
      const complete = { ...entry, thumbnail: this.#thumbnails.of(file) };
      this.#entries.set(id, complete);
      added.push(complete);
    }
  }

  /**
   * Notes the vectors of images, and keeps those, as far as the browser has room.
   * @param {string} embeddingId
   * @param {readonly (readonly [Entry, Float32Array])[]} found
   */
  async embedded(embeddingId, found) {
    const here = found.filter(([entry]) => this.#entries.get(entry.id) === entry);
    if (embeddingId === this.embeddingId) for (const [entry, vector] of here) entry.vector = vector;
    if (!this.#store) return this.#told('noStorage');
    try {
      for (const [entry] of here) await this.#keep(this.#store, entry);
      const still = here.filter(([entry]) => this.#entries.get(entry.id) === entry);
      await this.#store.keepVectors(embeddingId, still.map(([entry, vector]) => /** @type {const} */ ([entry.id, vector])));
    } catch {
      this.#told('full');
    }
  }

  /** @param {Entry} entry @returns {Promise<Blob | null>} */
  thumbnail(entry) {
    entry.thumbnail ??= (this.#store?.thumbnail(entry.id) ?? Promise.resolve(null)).then((found) => found ?? null).catch(() => null);
    return entry.thumbnail;
  }

  /**
   * The image itself, null if it is here no longer.
   * @param {Entry} entry
   * @returns {Promise<File | null>}
   */
  async file(entry) {
    if (!entry.file && entry.original) {
      const kept = await this.#store?.original(entry.id).catch(() => undefined);
      if (kept) entry.file = new File([kept], entry.name, { type: entry.type });
    }
    return entry.file;
  }

  /** @param {Entry} entry */
  async remove(entry) {
    this.#entries.delete(entry.id);
    if (entry.original) this.#originals -= entry.size;
    await this.#store?.remove(entry.id).catch(() => undefined);
  }

  async clear() {
    this.#entries.clear();
    this.#originals = 0;
    await this.#store?.clear().catch(() => undefined);
  }

  /**
   * @param {Store} store
   * @param {Entry} entry
   */
  async #keep(store, entry) {
    const thumbnail = await this.thumbnail(entry);
    if (!this.#entries.has(entry.id) || entry.original) return;
    const { id, name, size, type, order, file } = entry;
    if (file && this.#originals + size <= ORIGINALS) {
      try {
        await store.keep({ id, name, size, type, order, original: true }, thumbnail, file);
        entry.original = true;
        this.#originals += size;
        return;
      } catch {
        this.#told('full'); // or the file is gone: its small copy can still be kept
      }
    }
    await store.keep({ id, name, size, type, order, original: false }, thumbnail, null);
  }
}
