/** When to look again: when a folder says so, and after a while in any case, for not every file system says anything. */
import { watch, type FSWatcher } from 'node:fs';
import { followAbort, sleep } from 'clipsrv-client';

/** Of all that is written at once the first rings; the rest is there after this. */
const GATHER_MS = 200;
const MOST_FOLDERS = 4096;

export class Bell {
  readonly #watchers = new Map<string, FSWatcher>();
  #ring: () => void = () => undefined;
  #isRung = true;

  constructor(
    readonly everyMs: number,
    readonly signal: AbortSignal,
  ) {}

  /** Yields at once, and then whenever it was rung, or after `everyMs`. Ends by the signal's reason. */
  async *wakes(): AsyncGenerator<void> {
    for (;;) {
      if (!this.#isRung) await this.#rungOr(this.everyMs);
      await sleep(GATHER_MS, this.signal);
      this.#isRung = false;
      yield;
    }
  }

  ring(): void {
    this.#isRung = true;
    this.#ring();
  }

  /** Rings when something in this folder changes, not below it. What cannot be watched is looked at from time to time. */
  watch(folder: string): void {
    if (this.#watchers.has(folder) || this.#watchers.size >= MOST_FOLDERS) return;
    try {
      const watcher = watch(folder, { persistent: false }, () => this.ring());
      const leave = (): void => {
        watcher.close();
        this.#watchers.delete(folder);
      };
      watcher.on('error', leave);
      this.#watchers.set(folder, watcher);
    } catch {
      // It has gone, or the system watches no more.
    }
  }

  /** Folders that are gone are watched again when they come back. */
  keep(folders: ReadonlySet<string>): void {
    for (const [folder, watcher] of this.#watchers) {
      if (folders.has(folder)) continue;
      watcher.close();
      this.#watchers.delete(folder);
    }
    for (const folder of folders) this.watch(folder);
  }

  close(): void {
    this.keep(new Set());
  }

  async #rungOr(ms: number): Promise<void> {
    const rung = new Promise<void>((resolve) => (this.#ring = resolve));
    const timer = new AbortController();
    const letGo = followAbort(this.signal, timer);
    await Promise.race([rung, sleep(ms, timer.signal).catch(() => undefined)]).finally(letGo);
    timer.abort();
    this.signal.throwIfAborted();
  }
}
