/** The real server on the bundled model, as a process of its own that can be killed and started again. */
import { spawn, type ChildProcess } from 'node:child_process';
import { createServer } from 'node:net';
import path from 'node:path';
import { ClipClient } from 'clipsrv-client';

export const REPOSITORY = path.resolve(import.meta.dirname, '../../../..');
/** The interpreter that has clipsrv's packages. */
export const PYTHON = process.env['CLIPSRV_TEST_PYTHON'] ?? 'python3';
export const MODEL = process.env['CLIPSRV_TEST_MODEL'] ?? 'demo';
const START_MS = 60_000;

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export class ClipServer {
  #child: ChildProcess | undefined;
  #stderr = '';

  private constructor(
    readonly url: string,
    readonly args: readonly string[],
  ) {}

  /** `flags` are the server's own, for example `--api-key-file`. */
  static async start(...flags: string[]): Promise<ClipServer> {
    const port = await freePort();
    const args = ['-m', 'clipsrv', 'serve', '--model', MODEL, '--device', 'cpu', '--port', String(port), ...flags];
    const server = new ClipServer(`http://127.0.0.1:${port}`, args);
    await server.up();
    return server;
  }

  async up(): Promise<void> {
    this.#stderr = '';
    const child = spawn(PYTHON, this.args, { cwd: REPOSITORY, stdio: ['ignore', 'ignore', 'pipe'] });
    child.stderr.on('data', (chunk: Buffer) => (this.#stderr = (this.#stderr + chunk.toString()).slice(-4000)));
    this.#child = child;
    const controller = new AbortController();
    child.once('exit', (status) => controller.abort(new Error(`the server ended with status ${status}: ${this.#stderr}`)));
    await new ClipClient({ baseUrl: this.url }).waitUntilReady(START_MS, { signal: controller.signal });
  }

  kill(): Promise<void> {
    return this.#end('SIGKILL');
  }

  stop(): Promise<void> {
    return this.#end('SIGTERM');
  }

  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await gone;
  }
}
