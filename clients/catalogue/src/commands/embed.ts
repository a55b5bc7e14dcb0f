/** The `embed` command: checks that server and table fit together, runs the job, says how it went. */
import type { RetryNotice } from 'clipsrv-client';
import type { Totals } from '../counts.ts';
import { Database } from '../database.ts';
import { RefusedError } from '../errors.ts';
import { isKind, KINDS, settingsFor } from '../indexes/kinds.ts';
import { hnsw, indexesOf, indexName } from '../indexes/make.ts';
import { makeShown } from '../indexes/show.ts';
import { problemOf, runJob, type Observer } from '../job.ts';
import { rowsOf } from '../migrate/measure.ts';
import { keepInStep, toStderr } from '../migrate/step.ts';
import type { EmbedOptions, CatalogueOptions } from '../options/catalogue.ts';
import { Report } from '../report.ts';
import { refuseOther, served, type Model } from '../server.ts';
import { openQuery, openSource } from '../sources/open.ts';
import type { Source } from '../sources/source.ts';
import { publish, sidesOf } from '../tables/catalogue.ts';
import { VectorTable } from '../tables/table.ts';

/** Returns the exit status: 0, or 1 if an image failed. Throws RefusedError, or what made it impossible to go on. */
export async function embedCommand(options: EmbedOptions, signal: AbortSignal): Promise<number> {
  let note = toStderr;
  const onRetry = retryTo((line) => note(line));
  const database = new Database({ url: options.database, patienceMs: options.patienceMs, signal, onRetry });
  const queryDatabase = openQueryDatabase(options, signal, onRetry);
  try {
    const source = await sourceOf(options, queryDatabase);
    const total = await countEntries(source);
    const open = (): Report => {
      const report = new Report(total, options.dryRun ? undefined : options.failures);
      note = (line) => report.note(line);
      return report;
    };
    const totals = await embedSource({ database, source, options, signal, onRetry, note: (line) => note(line), open, summarize });
    return totals.failed > 0 ? 1 : 0;
  } finally {
    await Promise.all([database.close(), queryDatabase?.close()]);
  }
}

export interface Pass {
  readonly database: Database;
  readonly source: Source;
  readonly options: CatalogueOptions;
  readonly signal: AbortSignal;
  readonly onRetry: (notice: RetryNotice) => void;
  readonly note: (line: string) => void;
  /** Called once server and table are found to fit; closed whatever happens. */
  readonly open: () => Observer & { close(): Totals };
  readonly summarize: (totals: Totals, options: CatalogueOptions, model: string) => void;
}

/** What has no vector yet of the model that counts gets one, in both tables of a catalogue that moves. Throws as the command does. */
export async function embedSource({ database, source, options, signal, onRetry, note, open, summarize }: Pass): Promise<Totals> {
  const sides = await sidesOf(database, options.table);
  const current = sides.find(({ isCurrent }) => isCurrent);
  // To embed anew is to change to the server's own choice; else the catalogue's model is asked for, whichever the default is.
  const wanted = options.reembed ? undefined : current?.embeddingId;
  const found = await served(options, signal, wanted, onRetry);
  if (sides.length > 1) {
    if (options.reembed) throw new RefusedError(`${options.table} is moving to another model: end that first (migrate --status).`);
    refuseOther(options.table, current, found);
  }
  const { client, model } = found;
  const table = new VectorTable(database, current?.table ?? options.table);
  const tableExists = await prepareTable(table, model, options);
  // What was noted may be of a model whose vectors another program has replaced since.
  const isStale = current !== undefined && current.embeddingId !== model.embeddingId;
  if (tableExists && sides.length < 2 && !options.dryRun && (options.create || options.reembed || isStale)) await publishTable(table, model, note);
  const observer = open();
  let totals: Totals | undefined;
  try {
    const { recheck, dryRun, batch } = options;
    const { embeddingId } = model;
    await runJob({ source, table, client, embeddingId, tableExists, recheck, dryRun, batch, observer, signal });
  } finally {
    totals = observer.close();
    summarize(totals, options, model.name);
  }
  if (!options.dryRun) await finishTable(table, model, options, signal);
  if (!options.dryRun && sides.length > 1) await keepInStep({ database, sides, options, servers: [options.server], base: source.base, signal, note: toStderr });
  return totals;
}

export const retryTo = (note: (line: string) => void) => ({ error, delayMs }: RetryNotice): void => note(`waiting ${(delayMs / 1000).toFixed(1)} s: ${error.message}`);

export function openQueryDatabase({ patienceMs, query, queryDatabase }: CatalogueOptions, signal: AbortSignal, onRetry: (notice: RetryNotice) => void): Database | undefined {
  return query === undefined ? undefined : new Database({ url: queryDatabase, patienceMs, signal, onRetry });
}

export function sourceOf(options: CatalogueOptions, queryDatabase: Database | undefined, updated?: string): Promise<Source> | Source {
  if (options.query !== undefined && queryDatabase !== undefined) return openQuery(queryDatabase, options.query, options.base, updated);
  const columns = { id: options.idColumn, location: options.locationColumn };
  return openSource(options.source ?? '', { columns, base: options.base, encoding: options.encoding });
}

/** What a shop asks of the table; a role that may write rows but make nothing goes without. */
async function publishTable(table: VectorTable, model: Model, note: (line: string) => void): Promise<void> {
  const { name, dimensions, embeddingId } = model;
  try {
    await publish(table.database, table.name, { table: table.name, model: name, dimensions, embeddingId, isCurrent: true });
  } catch (error) {
    if ((error as { code?: string }).code !== INSUFFICIENT_PRIVILEGE) throw error;
    note(`${table.name}_current and what belongs to it were not made: ${(error as Error).message}.`);
  }
}

const INSUFFICIENT_PRIVILEGE = '42501';

/** False if the table is not there, which only a dry run accepts. */
async function prepareTable(table: VectorTable, model: Model, options: CatalogueOptions): Promise<boolean> {
  let dimensions = await table.dimensions();
  if (dimensions === undefined && options.dryRun) return false;
  if (dimensions === undefined) {
    if (!options.create) throw new RefusedError(`There is no table ${table.name}: add --create to have it made.`);
    await table.create(model.dimensions);
    dimensions = model.dimensions;
  }
  if (dimensions !== model.dimensions) {
    throw new RefusedError(
      `${table.name} holds vectors of ${dimensions} dimensions, ${model.name} makes ${model.dimensions}: name a new table with --table and --create.`,
    );
  }
  const foreign = options.reembed ? undefined : await table.foreign(model.embeddingId);
  if (foreign !== undefined) {
    throw new RefusedError(
      `${table.name} holds ${foreign.rows} vectors of another model (embedding_id ${foreign.embeddingId}; the server's is ` +
        `${model.embeddingId}), which cannot be compared. Use --reembed to replace them, or another --table.`,
    );
  }
  return true;
}

async function finishTable(table: VectorTable, model: Model, options: CatalogueOptions, signal: AbortSignal): Promise<void> {
  if (options.index) await indexTable(table, model, signal);
  const left = options.reembed ? await table.foreign(model.embeddingId) : undefined;
  if (left !== undefined) {
    process.stderr.write(
      `${left.rows} rows still have vectors of another model (embedding_id ${left.embeddingId}): they failed, or are not in ` +
        'this catalogue. search leaves them out.\n',
    );
  }
}

/** Built after loading, which is much faster than keeping it up while loading. A smaller one that is there will do. */
async function indexTable({ database, name }: VectorTable, { dimensions }: Model, signal: AbortSignal): Promise<void> {
  const names = Object.keys(KINDS).filter(isKind).map((kind) => indexName(name, kind));
  if ((await indexesOf(database, name)).some((index) => index.isValid && names.includes(index.name))) return;
  await makeShown(database, hnsw(name, dimensions, 'vector', settingsFor(await rowsOf(database, { table: name }))), signal);
}

/** Throws RefusedError if there are entries and none can be used: then it is the catalogue that is wrong, not its entries. */
async function countEntries(source: Source): Promise<number> {
  let count = 0;
  let isUsable = false;
  let first: string | undefined;
  for await (const entry of source.entries()) {
    const problem = problemOf(entry);
    if (problem === undefined) isUsable = true;
    else first ??= `${'item' in entry ? entry.item.location : entry.where}: ${problem}`;
    count++;
  }
  if (!isUsable && first !== undefined) throw new RefusedError(`None of the ${count} entries can be used. ${first}`);
  return count;
}

function summarize(totals: Totals, options: CatalogueOptions, model: string): void {
  const { due, failed, repeated, skipped, stored, total } = totals;
  const done = options.dryRun ? `${due} would be embedded` : `${stored} embedded with ${model}`;
  const again = repeated > 0 ? `, ${repeated} named twice` : '';
  process.stdout.write(`${total} in the catalogue: ${done}, ${skipped} already done, ${failed} failed${again}\n`);
}
