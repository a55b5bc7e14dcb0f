/** What the tests of the job share: a database, a server, folders of images, and the command run against them. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { image } from '../../../typescript/test/support/images.ts';
import { ClipServer } from '../../../typescript/test/support/server.ts';
import { launch, type Outcome, type Running } from './cli.ts';
import { Postgres, type INSTALLS } from './postgres.ts';

export interface Row {
  readonly id: string;
  readonly location: string;
  readonly sha256: string;
  readonly embedding_id: string;
  readonly embedding: string;
}

export class Workshop {
  private constructor(
    readonly postgres: Postgres,
    readonly server: ClipServer,
    readonly folder: string,
  ) {}

  static async open(pgvector?: keyof typeof INSTALLS): Promise<Workshop> {
    const [postgres, server] = await Promise.all([Postgres.start(pgvector), ClipServer.start()]);
    return new Workshop(postgres, server, mkdtempSync(path.join(tmpdir(), 'clipsrv-catalogue-')));
  }

  async close(): Promise<void> {
    await Promise.all([this.server.stop(), this.postgres.remove()]);
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** A new folder of `count` different images, `seed` apart from those of other folders. */
  images(name: string, count: number, seed = 0, width?: number, height?: number): string {
    const folder = path.join(this.folder, name);
    mkdirSync(folder, { recursive: true });
    for (let i = 0; i < count; i++) {
      writeFileSync(path.join(folder, `${String(i).padStart(5, '0')}.png`), image(seed + i, width, height));
    }
    return folder;
  }

  launch(...args: string[]): Running {
    return launch(args, this.folder, { DATABASE_URL: this.postgres.url, CLIP_SERVER_URL: this.server.url });
  }

  run(...args: string[]): Promise<Outcome> {
    return this.launch(...args).outcome;
  }

  rows(table: string): Promise<Row[]> {
    return this.postgres.query<Row>(`SELECT id, location, sha256, embedding_id, embedding::text FROM ${table} ORDER BY id COLLATE "C"`);
  }

  async count(table: string): Promise<number> {
    const [row] = await this.postgres.query<{ count: string }>(`SELECT count(*) AS count FROM ${table}`);
    return Number(row?.count ?? 0);
  }

  /** Resolves once the table has more than `rows` rows. */
  async stored(table: string, rows: number): Promise<void> {
    for (;;) {
      const [found] = await this.postgres.query<{ there: boolean }>('SELECT to_regclass($1) IS NOT NULL AS there', [table]);
      if (found?.there && (await this.count(table)) > rows) return;
      await delay(10);
    }
  }
}
