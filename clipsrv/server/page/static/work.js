/** Keeps the images embedded by the model that is chosen, whatever becomes of the server. Knows nothing of how they are shown. */
import { Intake } from './intake.js';
import { Refused, Unreachable } from './server.js';

/** @typedef {import('./album.js').Entry} Entry */
/**
 * @typedef {object} Told
 * @property {import('./intake.js').Told['failed']} failed
 * @property {import('./intake.js').Told['progress']} progress
 * @property {import('./intake.js').Told['held']} held
 * @property {(count: number) => void} lost images that have no vector of this model, and are here no longer themselves
 * @property {() => void} model the model in use, or what is known of it, is another
 * @property {() => void} changed images have vectors now, or have not
 */

export class Work {
  #server;
  #album;
  #models;
  #told;
  #intake;

  /**
   * @param {import('./server.js').Server} server
   * @param {import('./album.js').Album} album
   * @param {import('./model-choice.js').ModelChoice} models
   * @param {Told} told
   */
  constructor(server, album, models, told) {
    this.#server = server;
    this.#album = album;
    this.#models = models;
    this.#told = told;
    const { failed, progress, held } = told;
    this.#intake = new Intake(server, (entry) => album.file(entry), {
      embedded: (id, pairs) => this.#embedded(id, pairs),
      failed,
      progress,
      held,
    });
  }

  /** Learns which models there are, and takes up work with the one that is chosen. Refused or Unreachable if it cannot. */
  async connect() {
    this.#models.offer(await this.#server.models());
    await this.use();
  }

  /** Works with the model that is chosen now. */
  async use() {
    const { embedding_id: id = '' } = this.#models.facts;
    if (id !== this.#album.embeddingId) {
      this.#intake.cancel();
      await this.#album.use(id);
    }
    this.#told.model();
    this.#embedMissing();
  }

  /** @param {readonly Entry[]} entries are embedded as soon as the models are known */
  add(entries) {
    if (this.#models.known) this.#intake.add(this.#models.chosen, entries);
  }

  /** Forgets what waits. */
  cancel() {
    this.#intake.cancel();
  }

  /** There is a key now. */
  unlock() {
    this.#intake.unlock();
  }

  /**
   * An answer came from a model of another id than was told: it has just been loaded, or its folder is another.
   * @param {string} id
   */
  async adopt(id) {
    if (id === this.#album.embeddingId) return;
    await this.#album.use(id);
    await this.#reconsider();
  }

  /**
   * @param {string} id
   * @param {[Entry, Float32Array][]} pairs
   */
  async #embedded(id, pairs) {
    const other = id !== this.#album.embeddingId;
    if (other) await this.#album.use(id);
    await this.#album.embedded(id, pairs);
    if (other) await this.#reconsider();
    this.#told.changed();
  }

  async #reconsider() {
    try {
      this.#models.offer(await this.#server.models());
    } catch (error) {
      if (!(error instanceof Refused || error instanceof Unreachable)) throw error; // else what was told before has to do
    }
    this.#told.model();
    this.#embedMissing();
  }

  /** Sends the images that have no vector of this model. */
  #embedMissing() {
    const missing = this.#album.entries.filter((entry) => entry.vector === null);
    const here = missing.filter((entry) => entry.file || entry.original);
    this.#told.lost(missing.length - here.length);
    this.#intake.cancel();
    this.#intake.add(this.#models.chosen, here);
    this.#told.changed();
  }
}
