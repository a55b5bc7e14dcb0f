/** Both tables of a catalogue kept in step: what is written to one is carried to the other, whichever of them it is. */
import type { ClipClient, RetryNotice } from 'clipsrv-client';
import type { Database } from '../database.ts';
import type { SharedOptions } from '../options/shared.ts';
import { Report } from '../report.ts';
import { served } from '../server.ts';
import type { Side } from '../tables/catalogue.ts';
import { Passage } from '../tables/due.ts';
import { fill, fillChanges } from './fill.ts';

export interface Move {
  readonly database: Database;
  readonly options: SharedOptions;
  /** Where the models are: the first of these that has one is asked for its vectors. */
  readonly servers: readonly string[];
  readonly sides: readonly Side[];
  /** Relative locations are relative to this folder. */
  readonly base: string;
  readonly signal: AbortSignal;
  /** Takes one line for a person. */
  readonly note: (line: string) => void;
}

export const toStderr = (line: string): void => void process.stderr.write(`${line}\n`);

/** Carries what was written to either table since the last time. Returns how many rows were carried, and how many failed. */
export async function keepInStep(move: Move): Promise<Totals> {
  const totals = { carried: 0, failed: 0 };
  for (const passage of passagesOf(move)) {
    const due = await passage.changed();
    if (due === 0) continue;
    const { carried, failed } = await carry(passage, move, due, fillChanges);
    totals.carried += carried;
    totals.failed += failed;
  }
  return totals;
}

export interface Totals {
  readonly carried: number;
  readonly failed: number;
}

/** From the table that counts to the other, and back. */
export function passagesOf({ database, options, sides }: Move): readonly Passage[] {
  const [current, other] = [sides.find(({ isCurrent }) => isCurrent), sides.find(({ isCurrent }) => !isCurrent)];
  if (current === undefined || other === undefined) return [];
  return [new Passage(database, options.table, current, other), new Passage(database, options.table, other, current)];
}

/** Everything that `passage` has to carry, over and over until nothing is left that can be. */
export async function carryEverything(passage: Passage, move: Move): Promise<Totals> {
  const totals = { carried: 0, failed: 0 };
  for (let round = 0; round < ROUNDS; round++) {
    const due = await passage.missing() + await passage.changed();
    if (due === 0) return { ...totals, failed: 0 };
    const done = await carry(passage, move, due, fill);
    totals.carried += done.carried;
    totals.failed = done.failed;
    if (done.carried === 0) break;
  }
  return totals;
}

/** Rows that are written faster than they are embedded would keep it going for ever. */
const ROUNDS = 20;

async function carry(passage: Passage, move: Move, due: number, run: typeof fill): Promise<Totals> {
  const { base, options, signal } = move;
  const { to } = passage;
  let { note } = move;
  const onRetry = ({ error, delayMs }: RetryNotice): void => note(`waiting ${(delayMs / 1000).toFixed(1)} s: ${error.message}`);
  const client = await clientFor(to, move, onRetry);
  if (client === undefined) {
    note(`${due} rows wait for vectors of ${to.model} (embedding_id ${to.embeddingId}), which the server at ${move.servers.join(' or ')} does not have.`);
    return { carried: 0, failed: 0 };
  }
  const report = new Report(due, options.failures);
  note = (line) => report.note(line);
  try {
    const carried = await run({ passage, client, base, batch: options.batch, observer: report, signal });
    return { carried, failed: report.totals.failed };
  } finally {
    report.close();
  }
}

/** Of the model whose vectors `side` has; undefined if none of the servers has it. */
export async function clientFor(side: Side, { options, servers, signal }: Move, onRetry?: (notice: RetryNotice) => void): Promise<ClipClient | undefined> {
  for (const server of servers) {
    const { client, model } = await served({ ...options, server }, signal, side.embeddingId, onRetry);
    if (model.embeddingId === side.embeddingId) return client;
  }
  return undefined;
}
