/** What of a source is new, changed or gone since the last look, by marks that are cheap to get. Reads no image and no database. */
import type { CatalogueItem, Entry } from '../sources/source.ts';

/** An entry, and what differs when its image does: of a file its size and times, of a row what it says of itself. */
export interface Marked {
  readonly entry: Entry;
  readonly mark: string;
  /** It may be half written: it is taken once two looks find the same mark. */
  readonly isFile: boolean;
}

export interface Look {
  /** To be embedded, or to be listed for what they are. */
  readonly due: readonly Entry[];
  /** Ids that were there, and were not at this look nor at the one before. */
  readonly gone: readonly string[];
  /** False while something changed between two looks: it may be half written, and is taken at the next look if it is still the same. */
  readonly isSettled: boolean;
}

interface Known {
  location: string;
  /** As it was at the last look. */
  mark: string;
  /** What was handed out as due. */
  taken: string | undefined;
  /** The last look that found it. */
  look: number;
  retryAt: number;
  failures: number;
}

const FIRST_RETRY_MS = 60_000;
const LAST_RETRY_MS = 3_600_000;

export class Changes {
  readonly #known = new Map<string, Known>();
  readonly #toldBad = new Set<string>();
  #looks = 0;

  /** Takes note of all entries. Those of a look that throws count as not looked at. */
  async look(entries: AsyncIterable<Marked>, now: number): Promise<Look> {
    const found: Marked[] = [];
    for await (const one of entries) found.push(one);
    const look = ++this.#looks;
    const due: Entry[] = [];
    let isSettled = true;
    for (const { entry, mark, isFile } of found) {
      const state = 'item' in entry ? this.#meet(entry.item, mark, isFile, look, now) : this.#isNews(`${entry.where} ${entry.problem}`) ? 'due' : 'done';
      if (state === 'due') due.push(entry);
      else if (state === 'moving') isSettled = false;
    }
    const gone: string[] = [];
    for (const [id, { look: last }] of this.#known) {
      if (last === look) continue;
      isSettled &&= last < look - 1;
      if (last < look - 1) gone.push(id);
    }
    return { due, gone, isSettled };
  }

  /** It is tried again when it changes, and after a minute, then after twice as long, up to an hour. */
  failed(id: string, now: number): void {
    const known = this.#known.get(id);
    if (known === undefined) return;
    known.retryAt = now + Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** known.failures);
    known.failures++;
  }

  /** How many ids are there, or were at the last look. */
  get size(): number {
    return this.#known.size;
  }

  has(id: string): boolean {
    return this.#known.has(id);
  }

  forget(ids: readonly string[]): void {
    for (const id of ids) this.#known.delete(id);
  }

  #meet({ id, location }: CatalogueItem, mark: string, isFile: boolean, look: number, now: number): 'due' | 'moving' | 'done' {
    let known = this.#known.get(id);
    // A second entry of this id: the first counts, and this one is named once, in company of the first.
    if (known?.look === look) return known.location !== location && this.#isNews(`${id}\0${location}`) ? 'due' : 'done';
    const isSame = known?.location === location && known.mark === mark;
    if (known === undefined) this.#known.set(id, (known = { location, mark, taken: undefined, look, retryAt: Infinity, failures: 0 }));
    Object.assign(known, { location, mark, look });
    if (!isSame) known.failures = 0;
    if (!isSame && isFile) return 'moving';
    const state = `${location}\0${mark}`;
    if (known.taken === state && now < known.retryAt) return 'done';
    known.taken = state;
    known.retryAt = Infinity;
    return 'due';
  }

  #isNews(text: string): boolean {
    if (this.#toldBad.has(text)) return false;
    this.#toldBad.add(text);
    return true;
  }
}
