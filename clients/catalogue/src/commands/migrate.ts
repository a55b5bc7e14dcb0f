/** The `migrate` command: a catalogue moves to another model while it is read and written. */
import path from 'node:path';
import { Database } from '../database.ts';
import { RefusedError } from '../errors.ts';
import { megabytes, number, percent } from '../figures.ts';
import { settingsFor } from '../indexes/kinds.ts';
import { hnsw, indexesOf } from '../indexes/make.ts';
import { makeShown } from '../indexes/show.ts';
import { readJudgements } from '../migrate/judgements.ts';
import { recallOf, rowsOf, sharedNeighbours, NEIGHBOURS } from '../migrate/measure.ts';
import { carryEverything, clientFor, keepInStep, passagesOf, toStderr, type Move } from '../migrate/step.ts';
import type { MigrateOptions } from '../options/migrate.ts';
import { served, servedAs, type Model } from '../server.ts';
import { sidesOf, type Side } from '../tables/catalogue.ts';
import { bare, belonging, twinName } from '../tables/names.ts';
import { VectorTable } from '../tables/table.ts';
import { dropTwin, makeCurrent, makeTwin } from '../tables/twin.ts';

/** Returns the exit status: 0, or 1 if rows are without a vector of the other model. */
export async function migrateCommand(options: MigrateOptions, signal: AbortSignal): Promise<number> {
  const onRetry = ({ error, delayMs }: { error: Error; delayMs: number }): void =>
    toStderr(`waiting ${(delayMs / 1000).toFixed(1)} s: ${error.message}`);
  const database = new Database({ url: options.database, patienceMs: options.patienceMs, signal, onRetry });
  try {
    const sides = await sidesOf(database, options.table);
    const servers = [...new Set([options.server, options.toServer])];
    const move = { database, options, servers, sides, base: path.resolve(options.base ?? '.'), signal, note: toStderr };
    if (options.step === 'to') return await moveTo(move, options);
    const [old, young] = sides;
    if (old === undefined || young === undefined) throw new RefusedError(`${options.table} is not moving to another model: begin with --to MODEL.`);
    if (options.step === 'status') return await tellStatus(move);
    if (options.step === 'drop') return await drop(move, options.model);
    return await turnTo(options.step === 'switch' ? young : old, move, options);
  } finally {
    await database.close();
  }
}

async function moveTo(begun: Move, options: MigrateOptions): Promise<number> {
  const { database, signal } = begun;
  const judgements = options.judgements === undefined ? undefined : await readJudgements(options.judgements);
  const { model: target } = await servedAs({ ...options, server: options.toServer }, signal, options.model);
  if (begun.sides.length < 2) await begin(begun, target, options);
  const move = { ...begun, sides: await sidesOf(database, options.table) };
  const [passage] = passagesOf(move);
  if (passage === undefined || passage.to.embeddingId !== target.embeddingId) {
    const [first, second] = move.sides;
    throw new RefusedError(
      passage?.from.embeddingId === target.embeddingId ? `${options.table} shows ${options.model} already.`
      : `${options.table} is moving from ${first?.model} to ${second?.model}: end that first (--drop ${passage?.to.model} gives it up).`,
    );
  }
  const { carried, failed } = await carryEverything(passage, move);
  process.stdout.write(`${number(carried)} rows embedded with ${target.name} into ${passage.to.table}, ${failed} failed\n`);
  // The second table was made with the indexes that the first one had then.
  const [was, is] = await Promise.all([passage.from, passage.to].map((side) => indexesOf(database, side.table)));
  const kind = was?.find(({ isValid }) => isValid)?.kind;
  if (kind !== undefined && is?.length === 0) {
    const { table, dimensions } = passage.to;
    await makeShown(database, hnsw(table, dimensions, kind, settingsFor(await rowsOf(database, passage.from))), signal);
  }
  await tellStatus(move);
  const [a, b] = [passage.from, passage.to];
  const { shared, images } = await sharedNeighbours(database, a, b, await rowsOf(database, a), options.sample);
  process.stdout.write(`of the ${NEIGHBOURS} nearest neighbours of an image ${shared.toFixed(1)} are the same with both (${images} images)\n`);
  if (judgements !== undefined) {
    for (const side of [a, b]) {
      const client = await clientFor(side, move);
      const recall = client === undefined ? undefined : await recallOf(database, side, client, judgements);
      const figures = recall === undefined ? 'not measured: the server does not have it' : `first hit right ${percent(recall.first)}, recall@10 ${percent(recall.ten)}`;
      process.stdout.write(`${side.model}: ${figures} (${judgements.length} queries)\n`);
    }
  }
  const missing = await passage.missing();
  process.stdout.write(missing === 0 ? `${bare(belonging(options.table, 'current'))} shows ${a.model} until: migrate --switch\n` : `${number(missing)} rows have no vector of ${target.name} yet: run this again\n`);
  if (options.follow) await follow(move);
  return missing === 0 ? 0 : 1;
}

/** Makes the second table, if the first may be left. */
async function begin({ database, options, sides, signal }: Move, target: Model, { table }: MigrateOptions): Promise<void> {
  const from = new VectorTable(database, table);
  const dimensions = await from.dimensions();
  if (dimensions === undefined) throw new RefusedError(`There is no table ${table}.`);
  const kinds = await from.kinds();
  const [only, second] = kinds;
  if (only === undefined) throw new RefusedError(`${table} is empty: embed into it with ${target.name}.`);
  if (second !== undefined) throw new RefusedError(`${table} has vectors of ${kinds.length} models (${kinds.join(', ')}): bring it to one with embed --reembed first.`);
  if (only === target.embeddingId) throw new RefusedError(`The vectors of ${table} are of ${target.name} already.`);
  const known = sides.find(({ embeddingId }) => embeddingId === only)?.model;
  const old = await served(options, signal, only);
  const model = known ?? (old.model.embeddingId === only ? old.model.name : only);
  const now = { table, model, embeddingId: only, dimensions, isCurrent: true };
  const next = { table: twinName(table, target.name, [bare(table)]), model: target.name, embeddingId: target.embeddingId, dimensions: target.dimensions, isCurrent: false };
  await makeTwin(database, table, now, next);
}

async function turnTo(side: Side, move: Move, options: MigrateOptions): Promise<number> {
  const { database } = move;
  const view = belonging(options.table, 'current');
  if (side.isCurrent) {
    process.stdout.write(`${view} shows ${side.model} already\n`);
    if (options.follow) await follow(move);
    return 0;
  }
  const [passage] = passagesOf(move);
  const { carried } = passage === undefined ? { carried: 0 } : await carryEverything(passage, move);
  const missing = (await passage?.missing()) ?? 0;
  // While rows are being written the last of them are always on their way: they follow below.
  if (missing > (carried > 0 ? options.batch : 0) && !options.allowMissing) {
    throw new RefusedError(`${number(missing)} rows of ${passage?.from.table} have no vector of ${side.model}: run migrate --to again, or give --allow-missing.`);
  }
  await makeCurrent(database, options.table, side);
  process.stdout.write(`${view} shows ${side.model}${missing > 0 ? `, without ${number(missing)} rows` : ''}\n`);
  await keepInStep({ ...move, sides: await sidesOf(database, options.table) });
  if (options.follow) await follow(move);
  return 0;
}

async function drop({ database, options, sides }: Move, model: string): Promise<number> {
  const isMeant = (side: Side): boolean => side.model === model || side.embeddingId === model;
  const [left, gone] = [sides.find(({ isCurrent }) => isCurrent), sides.find((side) => !side.isCurrent && isMeant(side))];
  if (left !== undefined && gone === undefined && isMeant(left)) throw new RefusedError(`${model} is what ${belonging(options.table, 'current')} shows: --switch or --rollback first.`);
  if (gone === undefined || left === undefined) throw new RefusedError(`${options.table} has no vectors of ${model}, but of ${sides.map((side) => side.model).join(' and ')}.`);
  await dropTwin(database, options.table, gone, left);
  process.stdout.write(`${gone.table} with its vectors of ${model} is gone; ${options.table} has those of ${left.model}\n`);
  return 0;
}

async function tellStatus(move: Move): Promise<number> {
  const [passage] = passagesOf(move);
  for (const side of move.sides) {
    const rows = await rowsOf(move.database, side);
    const bytes = await new VectorTable(move.database, side.table).bytes();
    const coverage = side === passage?.to ? `, ${number(await passage.missing())} rows missing` : ', shown';
    process.stdout.write(`${side.model}: ${number(rows)} rows of ${side.dimensions} in ${side.table}, ${megabytes(bytes)}${coverage}\n`);
  }
  return 0;
}

/** Until interrupted. */
async function follow(move: Move): Promise<void> {
  const { database, options } = move;
  toStderr('following what is written to either table; Ctrl-C ends it');
  let last = '';
  const note = (line: string): void => {
    if (line !== last) toStderr(line);
    last = line;
  };
  for await (const _ of database.wakes(bare(belonging(options.table, 'changes')), EVERY_MS)) {
    const sides = await sidesOf(database, options.table);
    if (sides.length < 2) return;
    await keepInStep({ ...move, sides, note });
  }
}

const EVERY_MS = 5000;
