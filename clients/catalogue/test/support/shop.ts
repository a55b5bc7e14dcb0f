/** A shop that reads and writes a catalogue all the time, and knows for every row it sees which vector it must have. */
import { createHash } from 'node:crypto';
import { renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { ClipClient } from 'clipsrv-client';
import pg from 'pg';
import { image } from '../../../typescript/test/support/images.ts';

export interface ShopOptions {
  readonly url: string;
  readonly table: string;
  /** Where its images lie: those of the seeds 0 to `images` are there, as 00000.png and so on. */
  readonly folder: string;
  readonly images: number;
  /** By embedding_id. */
  readonly clients: ReadonlyMap<string, ClipClient>;
}

export interface Tally {
  queries: number;
  writes: number;
  /** Queries that met the switch between asking for the model and asking the view, and were asked again. */
  askedAgain: number;
  readonly failed: string[];
  /** Rows whose vector is not the one of its image and its model. */
  readonly mixed: string[];
}

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

export class Shop {
  readonly tally: Tally = { queries: 0, writes: 0, askedAgain: 0, failed: [], mixed: [] };
  readonly #options: ShopOptions;
  readonly #seeds = new Map<string, number>();
  readonly #vectors = new Map<string, Float32Array>();
  readonly #ids: string[];
  #next: number;
  #open = true;
  readonly #running: Promise<void>[];

  constructor(options: ShopOptions) {
    this.#options = options;
    this.#ids = Array.from({ length: options.images }, (_, i) => `${String(i).padStart(5, '0')}.png`);
    for (let seed = 0; seed < options.images; seed++) this.#seeds.set(sha256(image(seed)), seed);
    this.#next = options.images;
    this.#running = [this.#repeat((client) => this.#read(client)), this.#repeat((client) => this.#write(client))];
  }

  async close(): Promise<void> {
    this.#open = false;
    await Promise.all(this.#running);
  }

  /** The vector that the image of this content must have with this model. */
  async expected(embeddingId: string, digest: string): Promise<Float32Array> {
    const key = `${embeddingId} ${digest}`;
    const known = this.#vectors.get(key);
    if (known !== undefined) return known;
    const client = this.#options.clients.get(embeddingId);
    const seed = this.#seeds.get(digest);
    if (client === undefined || seed === undefined) throw new Error(`a row of embedding_id ${embeddingId} and sha256 ${digest}`);
    const vector = await client.embedImage(image(seed));
    this.#vectors.set(key, vector);
    return vector;
  }

  async check(row: { readonly id: string; readonly sha256: string; readonly embedding_id: string; readonly embedding: string }): Promise<void> {
    const expected = await this.expected(row.embedding_id, row.sha256);
    const found = JSON.parse(row.embedding) as number[];
    if (!expected.every((value, i) => Math.abs(value - (found[i] ?? Number.NaN)) < 1e-5)) this.tally.mixed.push(`${row.id} of ${row.embedding_id}`);
  }

  async #repeat(act: (client: pg.Client) => Promise<void>): Promise<void> {
    const client = new pg.Client({ connectionString: this.#options.url });
    await client.connect();
    while (this.#open) {
      await act(client).catch((error: unknown) => this.tally.failed.push(String(error)));
      await delay(5);
    }
    await client.end();
  }

  async #current(client: pg.Client): Promise<{ embeddingId: string; table: string }> {
    const { rows } = await client.query<{ id: string; table_name: string }>(`SELECT embedding_id AS id, table_name FROM ${this.#options.table}_models WHERE is_current`);
    const [row] = rows;
    if (row === undefined) throw new Error('no current model');
    return { embeddingId: row.id, table: row.table_name };
  }

  async #read(client: pg.Client): Promise<void> {
    const seed = Math.floor(Math.random() * this.#options.images);
    for (let tries = 0; ; tries++) {
      const { embeddingId } = await this.#current(client);
      const vector = await this.expected(embeddingId, sha256(image(seed)));
      const { rows } = await client.query<{ id: string; sha256: string; embedding_id: string; embedding: string }>({
        name: 'nearest',
        text: `SELECT id, sha256, embedding_id, embedding::text FROM ${this.#options.table}_current WHERE embedding_id = $2 ORDER BY embedding <=> $1::vector LIMIT 3`,
        values: [`[${vector.join(',')}]`, embeddingId],
      });
      for (const row of rows) await this.check(row);
      if (rows.length > 0) break;
      this.tally.askedAgain++;
      if (tries > 5) throw new Error('nothing found, again and again');
    }
    this.tally.queries++;
  }

  /** A new image, or another one for an id that is there, or one less. */
  async #write(client: pg.Client): Promise<void> {
    const choice = Math.random();
    const at = Math.floor(Math.random() * this.#ids.length);
    if (choice < 0.2 && this.#ids.length > this.#options.images) {
      const { table } = await this.#current(client);
      await client.query(`DELETE FROM ${table} WHERE id = $1`, this.#ids.splice(at, 1));
    } else {
      const seed = this.#next++;
      const id = choice < 0.6 ? `new-${seed}.png` : (this.#ids[at] ?? '');
      const { embeddingId } = await this.#current(client);
      const bytes = image(seed);
      const digest = sha256(bytes);
      this.#seeds.set(digest, seed);
      const vector = await this.expected(embeddingId, digest);
      const file = path.join(this.#options.folder, id);
      writeFileSync(`${file}.part`, bytes);
      renameSync(`${file}.part`, file);
      await client.query(`SELECT ${this.#options.table}_put($1, $1, $2, $3, $4::vector)`, [id, digest, embeddingId, `[${vector.join(',')}]`]);
      if (choice < 0.6) this.#ids.push(id);
    }
    this.tally.writes++;
  }
}
