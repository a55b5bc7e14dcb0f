/** The catalogue command as a process of its own, so that it can be killed. */
import { spawn, type ChildProcess } from 'node:child_process';
import path from 'node:path';
import { REPOSITORY } from '../../../typescript/test/support/server.ts';

const SCRIPT = path.join(REPOSITORY, 'scripts/generate-embeddings-from-catalog.ts');
const TSX = import.meta.resolve('tsx');
/** Compiled, a job of a few images takes half as long. What people run, through tsx, is run by the test of docs/catalogue.md. */
const COMPILED = process.env['CLIPSRV_TEST_CATALOGUE'];
const COMMAND = COMPILED === undefined ? ['--import', TSX, SCRIPT] : [COMPILED];

export interface Outcome {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly child: ChildProcess;
  readonly outcome: Promise<Outcome>;
  /** What it has said on stderr so far. */
  stderr(): string;
}

export function launch(args: readonly string[], cwd: string, env: Record<string, string> = {}): Running {
  const child = spawn(process.execPath, [...COMMAND, ...args], { cwd, env: { ...process.env, ...env } });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const outcome = new Promise<Outcome>((resolve) => {
    child.once('close', (status, signal) => resolve({ status, signal, stdout, stderr }));
  });
  return { child, outcome, stderr: () => stderr };
}
