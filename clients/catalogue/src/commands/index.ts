/** The `index` command: what an index over smaller vectors loses and saves, and the index itself. */
import { Database } from '../database.ts';
import { RefusedError } from '../errors.ts';
import { megabytes, number, percent } from '../figures.ts';
import { functionName, gramsIndex, makeFunction, NO_TEXTS, textsOf } from '../hybrid/function.ts';
import { KINDS, settingsFor, type KindName, type Settings } from '../indexes/kinds.ts';
import { hnsw, indexesOf, indexName, type Made } from '../indexes/make.ts';
import { NEIGHBOURS, questionsOf, recallOfKind, sizesOfKinds, type Figures, type Question } from '../indexes/measure.ts';
import { makeShown } from '../indexes/show.ts';
import { rowsOf } from '../migrate/measure.ts';
import type { IndexOptions } from '../options/index.ts';
import { Progress } from '../progress.ts';
import { sidesOf } from '../tables/catalogue.ts';
import { beside, quoted } from '../tables/names.ts';
import { VectorTable } from '../tables/table.ts';

/** Returns 0. Throws RefusedError for a type that this database does not have. */
export async function indexCommand(options: IndexOptions, signal: AbortSignal): Promise<number> {
  const database = new Database({ url: options.database, patienceMs: options.patienceMs, signal });
  try {
    const current = (await sidesOf(database, options.table)).find(({ isCurrent }) => isCurrent);
    const table = new VectorTable(database, current?.table ?? options.table);
    const dimensions = await table.dimensions();
    if (dimensions === undefined) throw new RefusedError(`There is no table ${table.name}: embed a catalogue first.`);
    const offered = await kindsOf(database, dimensions);
    if (!offered.includes(options.type)) throw new RefusedError(await whyNot(database, options.type, dimensions));
    if (options.measure) {
      await measure(table, dimensions, offered, options);
      return 0;
    }
    await makeSearch(table, options, signal);
    const there = (await indexesOf(database, table.name)).find(({ name, isValid }) => isValid && name === indexName(table.name, options.type));
    if (there === undefined) await measureAndMake(table, dimensions, options, signal);
    else if (options.texts === undefined) process.stderr.write(`${there.name} is there already (${megabytes(there.bytes)}); DROP INDEX it to have it made with other settings.\n`);
    await tellOthers(database, table.name, options);
    return 0;
  } finally {
    await database.close();
  }
}

/** Tells of every kind there is what it loses and saves. */
async function measure(table: VectorTable, dimensions: number, offered: readonly KindName[], options: IndexOptions): Promise<void> {
  await figuresOf(table, dimensions, offered, options);
  if (!offered.includes('halfvec')) process.stderr.write(`${await whyNot(table.database, 'halfvec', dimensions)}\n`);
}

async function measureAndMake(table: VectorTable, dimensions: number, options: IndexOptions, signal: AbortSignal): Promise<void> {
  const { database, name } = table;
  const { type, workers, memory } = options;
  const kinds: KindName[] = type === 'vector' ? ['vector'] : ['vector', type];
  const { figures, questions, settings } = await figuresOf(table, dimensions, kinds, options);
  await tellMemory(database, figures.find(({ kind }) => kind === type)?.bytes ?? 0, memory);
  const begun = performance.now();
  await makeShown(database, { ...hnsw(name, dimensions, type, settings), workers, memory }, signal);
  const seconds = (performance.now() - begun) / 1000;
  if (options.replace) await tellOthers(database, name, options);
  await tellMade(table, settings, questions, seconds, options);
}

async function figuresOf(table: VectorTable, dimensions: number, kinds: readonly KindName[], options: IndexOptions): Promise<{ figures: Figures[]; questions: Question[]; settings: Settings }> {
  const { database, name } = table;
  const rows = await rowsOf(database, { table: name });
  const bySize = settingsFor(rows);
  const m = options.m ?? bySize.m;
  const settings = { m, efConstruction: options.efConstruction ?? Math.max(bySize.efConstruction, 2 * m) };
  if (settings.efConstruction < 2 * m) throw new RefusedError(`--ef-construction must be at least twice --m (${2 * m}), not ${settings.efConstruction}.`);
  const progress = new Progress('measuring');
  const figures: Figures[] = [];
  let questions: Question[];
  try {
    const tell = (share: number, phase: string): void => progress.update(share, phase);
    questions = await questionsOf(database, name, rows, options.sample, tell);
    const sizes = await sizesOfKinds(database, name, dimensions, kinds, rows, settings);
    for (const kind of kinds) {
      const recall = kind === 'vector' ? 1 : await recallOfKind(database, name, dimensions, kind, questions, tell);
      figures.push({ kind, recall, candidates: KINDS[kind].taken(NEIGHBOURS), bytes: sizes.get(kind) ?? 0 });
    }
  } finally {
    progress.close();
  }
  tellFigures(figures, rows, dimensions, questions.length, options.json);
  return { figures, questions, settings };
}

/** The function that a search by words asks, and an index over the pieces of each column that is searched. */
async function makeSearch({ database, name: table }: VectorTable, { table: catalogue, texts: wanted }: IndexOptions, signal: AbortSignal): Promise<void> {
  const texts = wanted ?? (await textsOf(database, catalogue)) ?? NO_TEXTS;
  const { columns, items } = texts;
  try {
    await makeFunction(database, catalogue, table, texts);
  } catch (error) {
    if (!isDenied(error)) throw error;
    process.stderr.write(`${functionName(catalogue)} was not made: ${error.message}.\n`);
    return;
  }
  const where = columns.length === 0 ? 'vectors' : `vectors, and words in ${columns.join(', ')}${items === undefined ? '' : ` of ${items}`}`;
  process.stderr.write(`${functionName(catalogue)} searches by ${where}\n`);
  try {
    for (const column of columns) await makeShown(database, gramsIndex(catalogue, items ?? table, column), signal);
  } catch (error) {
    if (!isDenied(error)) throw error;
    process.stderr.write(`${error.message}: words are looked for in every row.\n`);
  }
}

/** insufficient_privilege; wrong_object_type: a view, whose tables may have indexes of their own. */
const isDenied = (error: unknown): error is Error => error instanceof Error && 'code' in error && (error.code === '42501' || error.code === '42809');

/** The kinds that this pgvector has, for vectors of this length. */
async function kindsOf(database: Database, dimensions: number): Promise<KindName[]> {
  const [found] = await database.query<{ smaller: boolean }>("SELECT to_regtype('halfvec') IS NOT NULL AS smaller");
  return Object.values(KINDS).filter(({ name, mostDimensions }) => dimensions <= mostDimensions && (name === 'vector' || found?.smaller)).map(({ name }) => name);
}

async function whyNot(database: Database, kind: KindName, dimensions: number): Promise<string> {
  const { mostDimensions } = KINDS[kind];
  if (dimensions > mostDimensions) return `pgvector makes no ${kind} index over more than ${mostDimensions} dimensions; these vectors have ${dimensions}.`;
  const [found] = await database.query<{ version: string }>("SELECT extversion AS version FROM pg_extension WHERE extname = 'vector'");
  return `pgvector ${found?.version} has no halfvec and no bit index: they came with 0.7.0. Install a newer one and ALTER EXTENSION vector UPDATE.`;
}

function tellFigures(figures: readonly Figures[], rows: number, dimensions: number, sample: number, json: boolean): void {
  const [full] = figures;
  if (json) {
    for (const { kind, recall, candidates, bytes } of figures) write(JSON.stringify({ type: kind, rows, dimensions, sample, recall, candidates, index_bytes: bytes }));
    return;
  }
  write(`${number(rows)} rows of ${dimensions} dimensions. The ten nearest of ${number(sample)} of them, the full vectors of what the index gives compared:`);
  for (const { kind, recall, candidates, bytes } of figures) {
    const saved = full === undefined || kind === 'vector' ? '' : `, ${percent(1 - bytes / full.bytes)} smaller; ${percent(1 - recall)} of recall@10 lost with ${candidates} compared again`;
    write(`  ${kind.padEnd(8)} an index of ${megabytes(bytes)}${saved}`);
  }
  if (figures.some(({ kind }) => kind === 'bit')) write('  (These questions are images; words lose more with bit: docs/catalogue.md.)');
}

/** A graph that does not fit is made on disk, which takes many times as long. */
async function tellMemory(database: Database, bytes: number, memory: string | undefined): Promise<void> {
  const [found] = await database.query<{ has: string; bytes: string; workers: string }>(
    `SELECT current_setting('maintenance_work_mem') AS has, pg_size_bytes(coalesce($1, current_setting('maintenance_work_mem'))) AS bytes`,
    [memory ?? null],
  );
  if (found === undefined || Number(found.bytes) >= bytes) return;
  process.stderr.write(`The index takes about ${megabytes(bytes)} while it is made, and may have ${memory ?? found.has}: with --memory ${Math.ceil(bytes / 2 ** 20 / 64) * 64}MB it is made much sooner, if the database's machine has that.\n`);
}

async function tellMade(table: VectorTable, settings: Settings, questions: readonly Question[], seconds: number, { type, json }: IndexOptions): Promise<void> {
  const indexes = await indexesOf(table.database, table.name);
  const [used] = indexes;
  const made = indexes.find(({ name }) => name === indexName(table.name, type));
  if (made === undefined) return;
  const recall = used?.name === made.name ? await recallThroughIndex(table, questions) : undefined;
  const { m, efConstruction } = settings;
  if (json) write(JSON.stringify({ index: made.name, type, index_bytes: made.bytes, seconds, m, ef_construction: efConstruction, recall }));
  else write(`${made.name}: ${megabytes(made.bytes)}, made in ${seconds.toFixed(1)} s (m ${m}, ef_construction ${efConstruction})${recall === undefined ? '' : `; search finds ${percent(recall)} of the ten nearest through it`}`);
}

/** As `search` asks, of the rows that were compared before. */
async function recallThroughIndex(table: VectorTable, questions: readonly Question[]): Promise<number> {
  const [embeddingId = ''] = await table.kinds();
  let share = 0;
  for (const { vector, tenth, hits } of questions) {
    const found = await table.nearest(Float32Array.from(JSON.parse(vector) as number[]), embeddingId, NEIGHBOURS);
    share += Math.min(1, found.filter(({ similarity }) => 1 - similarity <= tenth + 1e-6).length / hits);
  }
  return questions.length === 0 ? 1 : share / questions.length;
}

async function tellOthers(database: Database, table: string, { type, replace }: IndexOptions): Promise<void> {
  const isOther = ({ kind, name }: Made): boolean => kind !== type && name === indexName(table, kind);
  for (const { kind, name, bytes } of (await indexesOf(database, table)).filter(isOther)) {
    if (replace) await database.session((client) => client.query(`DROP INDEX CONCURRENTLY IF EXISTS ${quoted(beside(table, name))}`));
    const isUsed = KINDS[kind].mostDimensions < KINDS[type].mostDimensions;
    process.stderr.write(replace ? `${name} is dropped (${megabytes(bytes)})\n` : `${name} is there too (${megabytes(bytes)})${isUsed ? ', and search goes through it' : ''}: --replace drops it.\n`);
  }
}

const write = (line: string): boolean => process.stdout.write(`${line}\n`);
