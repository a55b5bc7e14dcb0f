/** One Chromium for all tests, each of which has a fresh profile; and what must never happen on any page of any of them. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after } from 'node:test';
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core';

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-dev-shm-usage',
  // A name that is no other machine's, and over plain HTTP no secure context either, as on a network at home.
  '--host-resolver-rules=MAP clip.example 127.0.0.1',
];
/** Milliseconds for anything to come about on a slow machine. */
const PATIENCE = 60_000;
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

let started: Promise<Browser> | undefined;
after(async () => (await started)?.close());

function browser(): Promise<Browser> {
  const executablePath = process.env['CLIPSRV_TEST_CHROMIUM'];
  assert.ok(executablePath, 'CLIPSRV_TEST_CHROMIUM names no Chromium');
  started ??= chromium.launch({ executablePath, args: FLAGS, timeout: 3 * PATIENCE });
  return started;
}

/** A page of a server in a profile of its own, and what it asked for. */
export class Visit {
  readonly asked: string[] = [];
  readonly #wrong: string[] = [];

  private constructor(
    readonly page: Page,
    readonly url: string,
  ) {}

  static async begin(url: string, options: BrowserContextOptions = {}): Promise<Visit> {
    const context = await (await browser()).newContext({ viewport: { width: 1000, height: 800 }, ...options });
    context.setDefaultTimeout(PATIENCE);
    const visit = new Visit(await context.newPage(), url);
    visit.#watch();
    await visit.arrive();
    return visit;
  }

  /** Comes to the page, or comes back to it. Chromium drops what it loads when an interface of the machine comes or goes. */
  async arrive(): Promise<void> {
    for (let tries = 3; ; tries--) {
      await this.page.goto(this.url);
      const begun = this.page.locator('#add-images', { hasText: /./ }).waitFor({ timeout: tries > 1 ? PATIENCE / 3 : PATIENCE });
      if (await begun.then(() => true, (error: unknown) => { if (tries === 1) throw error; return false; })) return;
    }
  }

  /** Fails if a script failed, the policy of the page was broken, or any other host was asked. */
  async end(): Promise<void> {
    const foreign = this.asked.filter((address) => ![this.url, 'blob:'].some((own) => address.startsWith(own)));
    await this.page.context().close();
    assert.deepEqual({ wrong: this.#wrong, foreign }, { wrong: [], foreign: [] });
  }

  #watch(): void {
    this.page.on('request', (request) => this.asked.push(request.url()));
    this.page.on('pageerror', (error) => this.#wrong.push(String(error.stack)));
    // What a server that is away or refuses makes the browser write is no fault of the page.
    this.page.on('console', (message) => {
      if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) this.#wrong.push(message.text());
    });
  }

  /** How many requests had this path. */
  count(path: string): number {
    return this.asked.filter((address) => new URL(address).pathname === path).length;
  }

  /** Chooses images, by what they are or by where they lie. */
  async choose(files: readonly { name: string; buffer: Buffer }[] | string[]): Promise<void> {
    const given = files.map((file) => (typeof file === 'string' ? file : { mimeType: '', ...file }));
    await this.page.setInputFiles('#images-input', given as string[]);
  }

  /** Waits until so many images are here, all of them with vectors. */
  async embedded(count: number): Promise<void> {
    await this.until(
      (wanted) =>
        document.querySelector('#count')?.textContent?.includes(wanted.toLocaleString('en')) === true &&
        document.querySelectorAll('#grid li').length > 0 &&
        document.querySelector('#grid li.waiting') === null &&
        (document.querySelector('#progress') as HTMLElement).offsetParent === null,
      count,
    );
  }

  async until<T>(check: (argument: T) => boolean, argument: T): Promise<void> {
    // As an expression, so that the page's policy against code made of text is kept.
    await this.page.waitForFunction(check as never, argument as never);
  }

  /** Waits until an element's text holds `text`. */
  async says(selector: string, text: string): Promise<void> {
    await this.page.locator(selector, { hasText: text }).first().waitFor();
  }

  /** The names in the grid, or in that of the index, and their figures, once its title holds `title`. */
  async ranking(title: string, section: '#results' | '#indexed' = '#results'): Promise<{ name: string; score: number }[]> {
    await this.says(`${section} h2`, title);
    return this.page.locator(`${section} li`).evaluateAll((cells) =>
      cells.map((cell) => ({
        name: cell.querySelector('.name')?.textContent ?? '',
        score: Number(cell.querySelector('.score')?.lastChild?.textContent),
      })),
    );
  }

  /** Every table of what the browser keeps, by its size. */
  stored(): Promise<Record<string, number>> {
    return this.page.evaluate(async () => {
      const database = await new Promise<IDBDatabase>((resolve) => {
        const request = indexedDB.open('clipsrv');
        request.onsuccess = () => resolve(request.result);
      });
      const sizes: Record<string, number> = {};
      for (const table of database.objectStoreNames) {
        sizes[table] = await new Promise((resolve) => {
          const request = database.transaction(table).objectStore(table).count();
          request.onsuccess = () => resolve(request.result);
        });
      }
      database.close();
      return sizes;
    });
  }

  /** What axe finds wrong, by rule. */
  async barriers(): Promise<string[]> {
    await this.page.evaluate(AXE);
    return this.page.evaluate(async () => {
      const { violations } = await (globalThis as never as { axe: { run: () => Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> } }).axe.run();
      return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`);
    });
  }
}
