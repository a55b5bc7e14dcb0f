/** Commands as a person types them, in one folder and one environment, to their end or until Ctrl-C. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';

const PATIENCE_MS = 900_000;
const LOOK_MS = 100;

export interface Background {
  /** Resolves when `isSo`; fails when the command ends before, or in a quarter of an hour. */
  until(isSo: () => Promise<boolean> | boolean, what: string): Promise<void>;
  /** What it has printed so far. */
  said(): string;
  /** As Ctrl-C does, to the command and all it has started; resolves when it is gone. */
  end(signal?: NodeJS.Signals): Promise<void>;
}

export class Shell {
  readonly #running = new Set<ChildProcess>();

  constructor(
    readonly folder: string,
    readonly env: NodeJS.ProcessEnv,
  ) {}

  /** What `export NAME=VALUE` does for all that follows. */
  export(command: string): void {
    const [, name, value] = /^export (\w+)=(\S+)$/.exec(command) ?? [];
    assert.ok(name !== undefined && value !== undefined, command);
    this.env[name] = value;
  }

  /** Both of its outputs; fails if its exit status is none of `statuses`. */
  async run(command: string, statuses: readonly number[] = [0]): Promise<string> {
    const { child, said } = this.#start(command);
    const timer = setTimeout(() => process.kill(-(child.pid ?? 0), 'SIGKILL'), PATIENCE_MS);
    const status = await new Promise<number | null>((resolve) => child.once('close', resolve));
    clearTimeout(timer);
    assert.ok(status !== null && statuses.includes(status), `${command}\nended with ${status}:\n${said().slice(-4000)}`);
    return said();
  }

  launch(command: string): Background {
    const { child, said } = this.#start(command);
    const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
    return {
      said,
      until: async (isSo, what) => {
        for (const begun = performance.now(); !(await isSo()); await delay(LOOK_MS)) {
          assert.ok(child.exitCode === null && child.signalCode === null, `${command}: ${what}: it has ended:\n${said().slice(-4000)}`);
          assert.ok(performance.now() - begun < PATIENCE_MS, `${command}: ${what}: not within a quarter of an hour:\n${said().slice(-4000)}`);
        }
      },
      end: async (signal = 'SIGINT') => {
        if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) process.kill(-child.pid, signal);
        return ended;
      },
    };
  }

  /** Ends whatever still runs. */
  close(): void {
    for (const { pid } of this.#running) {
      try {
        if (pid !== undefined) process.kill(-pid, 'SIGKILL');
      } catch {
        continue; // it has ended meanwhile
      }
    }
  }

  #start(command: string): { child: ChildProcess; said: () => string } {
    const child = spawn('bash', ['-c', command], { cwd: this.folder, env: this.env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
    this.#running.add(child);
    child.once('close', () => this.#running.delete(child));
    return { child, said: () => output };
  }
}
