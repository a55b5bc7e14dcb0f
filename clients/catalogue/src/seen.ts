/** Which ids a run has met, and with which location, at any distance: a million entries take 33 MB. */
import { createHash } from 'node:crypto';

const WORDS = 4;

export class Seen {
  /** Slots of four words: three of the id's hash and one, never 0 in a slot that is taken, of the location's. */
  #slots = new Uint32Array(1024 * WORDS);
  #count = 0;

  /** 'new' for an id that was not met before, 'same' for one met with this location, 'other' for one met with another. */
  add(id: string, location: string): 'new' | 'same' | 'other' {
    const digest = createHash('sha256').update(id).digest();
    const entry = [digest.readUInt32LE(0), digest.readUInt32LE(4), digest.readUInt32LE(8), brief(location) || 1];
    const at = this.#find(entry);
    const there = this.#slots[at + 3];
    if (there !== 0) return there === entry[3] ? 'same' : 'other';
    this.#slots.set(entry, at);
    if (++this.#count * WORDS * 3 > this.#slots.length * 2) this.#grow();
    return 'new';
  }

  /** Where the entry's id stands, or the empty slot for it. */
  #find(entry: ArrayLike<number>): number {
    const slots = this.#slots;
    for (let at = ((entry[0] ?? 0) * WORDS) % slots.length; ; at = (at + WORDS) % slots.length) {
      if (slots[at + 3] === 0) return at;
      if (slots[at] === entry[0] && slots[at + 1] === entry[1] && slots[at + 2] === entry[2]) return at;
    }
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Uint32Array(old.length * 2);
    for (let at = 0; at < old.length; at += WORDS) {
      const entry = old.subarray(at, at + WORDS);
      if (entry[3] !== 0) this.#slots.set(entry, this.#find(entry));
    }
  }
}

/** FNV-1a, which is enough to tell two locations of one id from one another. */
function brief(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}
