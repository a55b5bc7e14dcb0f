/** The `watch` command: keeps the table up with a folder, a file or a query, until it is interrupted. */
import { rmSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { sleep } from 'clipsrv-client';
import { Database } from '../database.ts';
import { toStderr } from '../migrate/step.ts';
import type { WatchOptions } from '../options/catalogue.ts';
import type { Source } from '../sources/source.ts';
import type { Totals } from '../counts.ts';
import { sidesOf } from '../tables/catalogue.ts';
import { Bell } from '../watch/bell.ts';
import { Changes, type Look } from '../watch/changes.ts';
import { marked } from '../watch/marks.ts';
import { CHANNEL, deleteRows, idsOf, makeTrigger } from '../watch/rows.ts';
import { Tally } from '../watch/tally.ts';
import { embedSource, openQueryDatabase, retryTo, sourceOf } from './embed.ts';

/** Never returns: it ends by the signal's reason, by RefusedError, or when server or database stay away for longer than --patience. */
export async function watchCommand(options: WatchOptions, signal: AbortSignal): Promise<number> {
  const onRetry = retryTo(toStderr);
  const database = new Database({ url: options.database, patienceMs: options.patienceMs, signal, onRetry });
  const queryDatabase = openQueryDatabase(options, signal, onRetry);
  const bell = new Bell(options.everyMs, signal);
  try {
    const source = await sourceOf(options, queryDatabase, options.updated);
    if (options.trigger !== undefined && queryDatabase !== undefined) {
      if (await makeTrigger(queryDatabase, options.trigger)) toStderr(`${options.trigger} tells of its changes from now on: trigger ${CHANNEL}, DROP it if you do not watch any more`);
    }
    rmSync(options.failures, { force: true });
    // Of a list its folder, for who replaces a file makes another one.
    const place = options.source === undefined ? undefined : path.resolve((await stat(options.source)).isDirectory() ? options.source : path.dirname(options.source));
    const watcher = new Watcher(database, source, place, options, bell, signal);
    for await (const _ of queryDatabase?.wakes(CHANNEL, options.everyMs) ?? bell.wakes()) {
      while (!(await watcher.turn())) await sleep(SETTLE_MS, signal);
    }
    return 0;
  } finally {
    bell.close();
    await Promise.all([database.close(), queryDatabase?.close()]);
  }
}

/** A file that is the same after this is taken for whole. */
const SETTLE_MS = 500;
/** Between two looks at least as many times as long as a look took, so that large catalogues are not looked at all the time. */
const REST = 2;

class Watcher {
  readonly #changes = new Changes();
  /** Until all that was there at the beginning is done. */
  #isFirst = true;
  /** Server and table were found to fit. */
  #isOpen = false;
  #toldGone = false;
  #problem = '';

  constructor(
    readonly database: Database,
    readonly source: Source,
    /** The folder of the source; undefined for a query. */
    readonly place: string | undefined,
    readonly options: WatchOptions,
    readonly bell: Bell,
    readonly signal: AbortSignal,
  ) {}

  /** Looks, and does what is to be done. False if something is still changing. */
  async turn(): Promise<boolean> {
    const start = performance.now();
    const look = await this.#look();
    if (look === undefined) return true;
    const took = performance.now() - start;
    const { due, gone, isSettled } = look;
    if (due.length > 0 || !this.#isOpen) await this.#embed(look);
    if (this.#isFirst && isSettled) {
      this.#isFirst = false;
      if (this.options.prune) await this.#prune(await this.#strangers());
      toStderr(`${this.#changes.size} images are watched; Ctrl-C ends it`);
    }
    if (gone.length > 0) {
      this.#changes.forget(gone);
      if (this.options.prune) await this.#prune(gone);
      else if (!this.#toldGone) toStderr(`${gone.length} images are gone; their rows stay, for --prune was not given`);
      this.#toldGone = true;
    }
    await sleep(took * REST, this.signal);
    return isSettled;
  }

  /** Undefined if the source could not be read to its end: a folder that goes while it is read, a list that is half written. */
  async #look(): Promise<Look | undefined> {
    const folders = new Set(this.place === undefined ? [] : [this.place]);
    const watched = (folder: string): void => {
      folders.add(folder);
      // Before its files are looked at: what changes after that rings.
      this.bell.watch(folder);
    };
    for (const folder of folders) this.bell.watch(folder);
    try {
      const look = await this.#changes.look(marked(this.source, watched, this.signal), Date.now());
      this.bell.keep(folders);
      this.#problem = '';
      return look;
    } catch (error) {
      this.signal.throwIfAborted();
      const { message } = error as Error;
      // A query goes wrong for good, and a database that was waited for has been away for too long.
      if (this.options.query !== undefined) throw error;
      if (message !== this.#problem) toStderr(`not looked at: ${message}`);
      this.#problem = message;
      // A folder that goes and comes back is another one: it is watched anew.
      this.bell.close();
      return undefined;
    }
  }

  async #embed({ due }: Look): Promise<void> {
    const { database, options, signal, source } = this;
    const failed: string[] = [];
    const summarize = ({ failed, skipped, stored }: Totals, _: unknown, model: string): void => {
      if (stored + failed + skipped > 0) process.stdout.write(`${stored} embedded with ${model}, ${skipped} already done, ${failed} failed\n`);
    };
    await embedSource({
      database, signal, summarize,
      onRetry: retryTo(toStderr),
      note: toStderr,
      source: { base: source.base, entries: async function* () { yield* due; } },
      // What has changed since the beginning is read again, whatever its location.
      options: { ...options, create: options.create && !this.#isOpen, recheck: options.recheck || !this.#isFirst },
      open: () => new Tally(due.length, options.failures, toStderr, ({ id }) => failed.push(id)),
    });
    this.#isOpen = true;
    for (const id of failed) this.#changes.failed(id, Date.now());
  }

  /** Rows of the table that the source does not have. */
  async #strangers(): Promise<readonly string[]> {
    const found: string[] = [];
    for await (const page of idsOf(this.database, await this.#table())) found.push(...page.filter((id) => !this.#changes.has(id)));
    return found;
  }

  async #prune(ids: readonly string[]): Promise<void> {
    if (ids.length === 0) return;
    const left = this.#changes.size;
    if (ids.length > left) {
      toStderr(`${ids.length} images are gone at once and ${left} are left: no row is deleted. Is the folder there, and the query right? If it is meant, delete the rows in SQL.`);
      return;
    }
    process.stdout.write(`${await deleteRows(this.database, await this.#table(), ids)} rows deleted of images that are gone\n`);
  }

  async #table(): Promise<string> {
    const current = (await sidesOf(this.database, this.options.table)).find(({ isCurrent }) => isCurrent);
    return current?.table ?? this.options.table;
  }
}
