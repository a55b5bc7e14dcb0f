/** The `embed` command: checks that server and table fit together, runs the job, says how it went. */
import type { RetryNotice } from 'clipsrv-client';
import { Database } from '../database.ts';
import { RefusedError } from '../errors.ts';
import { problemOf, runJob } from '../job.ts';
import { keepInStep, toStderr } from '../migrate/step.ts';
import type { EmbedOptions } from '../options.ts';
import { Report, type Totals } from '../report.ts';
import { refuseOther, served, type Model } from '../server.ts';
import { openQuery, openSource } from '../sources/open.ts';
import type { Source } from '../sources/source.ts';
import { publish, sidesOf } from '../tables/catalogue.ts';
import { VectorTable } from '../tables/table.ts';

/** Returns the exit status: 0, or 1 if an image failed. Throws RefusedError, or what made it impossible to go on. */
export async function embedCommand(options: EmbedOptions, signal: AbortSignal): Promise<number> {
  let note = toStderr;
  const onRetry = ({ error, delayMs }: RetryNotice): void =>
    note(`waiting ${(delayMs / 1000).toFixed(1)} s: ${error.message}`);
  const { patienceMs } = options;
  const connect = (url: string): Database => new Database({ url, patienceMs, signal, onRetry });
  const database = connect(options.database);
  const queryDatabase = options.query === undefined ? undefined : connect(options.queryDatabase);
  try {
    const source = await sourceOf(options, queryDatabase);
    const total = await countEntries(source);
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
    const report = new Report(total, options.dryRun ? undefined : options.failures);
    note = (line) => report.note(line);
    try {
      const { recheck, dryRun, batch } = options;
      const { embeddingId } = model;
      await runJob({ source, table, client, embeddingId, tableExists, recheck, dryRun, batch, observer: report, signal });
    } finally {
      summarize(report.close(), options, model.name);
    }
    if (!options.dryRun) await finishTable(table, model, options);
    if (!options.dryRun && sides.length > 1) await keepInStep({ database, sides, options, servers: [options.server], base: source.base, signal, note: toStderr });
    return report.totals.failed > 0 ? 1 : 0;
  } finally {
    await Promise.all([database.close(), queryDatabase?.close()]);
  }
}

function sourceOf(options: EmbedOptions, queryDatabase: Database | undefined): Promise<Source> | Source {
  if (options.query !== undefined && queryDatabase !== undefined) return openQuery(queryDatabase, options.query, options.base);
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
async function prepareTable(table: VectorTable, model: Model, options: EmbedOptions): Promise<boolean> {
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

async function finishTable(table: VectorTable, model: Model, options: EmbedOptions): Promise<void> {
  if (options.index) await table.createIndex();
  const left = options.reembed ? await table.foreign(model.embeddingId) : undefined;
  if (left !== undefined) {
    process.stderr.write(
      `${left.rows} rows still have vectors of another model (embedding_id ${left.embeddingId}): they failed, or are not in ` +
        'this catalogue. search leaves them out.\n',
    );
  }
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

function summarize(totals: Totals, options: EmbedOptions, model: string): void {
  const { due, failed, repeated, skipped, stored, total } = totals;
  const done = options.dryRun ? `${due} would be embedded` : `${stored} embedded with ${model}`;
  const again = repeated > 0 ? `, ${repeated} named twice` : '';
  process.stdout.write(`${total} in the catalogue: ${done}, ${skipped} already done, ${failed} failed${again}\n`);
}
