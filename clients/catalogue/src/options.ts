/** The command line and the environment, as one checked object for each command. Opens nothing. */
import { parseArgs } from 'node:util';
import { RefusedError } from './errors.ts';
import { filtersOf, type Filters } from './hybrid/filters.ts';
import type { Texts } from './hybrid/function.ts';
import { isKind, KINDS, type KindName } from './indexes/kinds.ts';
import { decoderOf } from './text.ts';

export interface SharedOptions {
  readonly database: string;
  readonly table: string;
  readonly server: string;
  readonly apiKey: string | undefined;
  /** Images in a request and rows in a transaction. */
  readonly batch: number;
  readonly concurrency: number;
  readonly patienceMs: number;
  readonly failures: string;
  /** Relative locations are relative to this folder. */
  readonly base: string | undefined;
}

/** Where a catalogue comes from, and how its table is filled. */
export interface CatalogueOptions extends SharedOptions {
  readonly source: string | undefined;
  readonly query: string | undefined;
  readonly queryDatabase: string;
  readonly idColumn: string;
  readonly locationColumn: string | undefined;
  readonly encoding: string | undefined;
  readonly create: boolean;
  readonly index: boolean;
  readonly reembed: boolean;
  readonly recheck: boolean;
  readonly dryRun: boolean;
}

export interface EmbedOptions extends CatalogueOptions {
  readonly command: 'embed';
}

export interface WatchOptions extends CatalogueOptions {
  readonly command: 'watch';
  /** How often it looks where nothing tells of a change. */
  readonly everyMs: number;
  /** Delete the rows of what is gone. */
  readonly prune: boolean;
  /** A table that is to tell of its changes by a trigger. */
  readonly trigger: string | undefined;
  /** The query's column that differs when a row has changed. */
  readonly updated: string | undefined;
}

export interface SearchOptions extends SharedOptions {
  readonly command: 'search';
  readonly text: string | undefined;
  readonly image: string | undefined;
  readonly limit: number;
  /** What is not wanted, in words and as images. */
  readonly not: readonly string[];
  readonly notImages: readonly string[];
  readonly filters: Filters;
  readonly json: boolean;
}

export interface MigrateOptions extends SharedOptions {
  readonly command: 'migrate';
  readonly step: 'to' | 'status' | 'switch' | 'rollback' | 'drop';
  /** The model of --to and --drop. */
  readonly model: string;
  readonly toServer: string;
  readonly judgements: string | undefined;
  readonly sample: number | undefined;
  readonly follow: boolean;
  readonly allowMissing: boolean;
}

export interface DuplicatesOptions extends SharedOptions {
  readonly command: 'duplicates';
  /** Undefined: measured. */
  readonly threshold: number | undefined;
  /** Images whose copies are measured. */
  readonly sample: number;
  readonly html: string | undefined;
  readonly json: boolean;
}

export interface IndexOptions extends SharedOptions {
  readonly command: 'index';
  readonly type: KindName;
  /** Only tell what each type would lose and save. */
  readonly measure: boolean;
  readonly sample: number | undefined;
  /** Undefined: by the number of rows. */
  readonly m: number | undefined;
  readonly efConstruction: number | undefined;
  readonly workers: number | undefined;
  readonly memory: string | undefined;
  /** Drop the other HNSW indexes of this job once the new one is there. */
  readonly replace: boolean;
  /** Undefined: those that were searched before, if any. */
  readonly texts: Texts | undefined;
  readonly json: boolean;
}

export type Options = EmbedOptions | SearchOptions | MigrateOptions | DuplicatesOptions | WatchOptions | IndexOptions | { readonly command: 'help' };

type Command = 'embed' | 'search' | 'migrate' | 'duplicates' | 'watch' | 'index';
const COMMANDS: readonly Command[] = ['embed', 'search', 'migrate', 'duplicates', 'watch', 'index'];

const all = <T extends 'string' | 'boolean'>(type: T) => ({ type, of: COMMANDS });
const some = <T extends 'string' | 'boolean'>(type: T, ...of: Command[]) => ({ type, of: of as readonly Command[] });
/** `search` has always taken the options of `embed` without a word, and the other way round. */
const both = <T extends 'string' | 'boolean'>(type: T) => some(type, 'embed', 'search');
const source = <T extends 'string' | 'boolean'>(type: T) => some(type, 'embed', 'search', 'watch');
const watch = <T extends 'string' | 'boolean'>(type: T) => some(type, 'watch');
const migrate = <T extends 'string' | 'boolean'>(type: T) => some(type, 'migrate');
const duplicates = <T extends 'string' | 'boolean'>(type: T, ...others: Command[]) => some(type, 'duplicates', ...others);

const FLAGS = {
  database: all('string'), table: all('string'), server: all('string'), batch: all('string'), concurrency: all('string'),
  patience: all('string'), failures: all('string'), base: all('string'),
  query: source('string'), 'query-database': source('string'), 'id-column': source('string'), 'location-column': source('string'),
  encoding: source('string'), create: source('boolean'), index: both('boolean'), reembed: both('boolean'), recheck: source('boolean'),
  'dry-run': both('boolean'), text: both('string'), image: both('string'), limit: both('string'), json: duplicates('boolean', 'embed', 'search', 'index'),
  to: migrate('string'), 'to-server': migrate('string'), judgements: migrate('string'), sample: duplicates('string', 'migrate', 'index'), follow: migrate('boolean'),
  status: migrate('boolean'), switch: migrate('boolean'), rollback: migrate('boolean'), 'allow-missing': migrate('boolean'), drop: migrate('string'),
  threshold: duplicates('string'), html: duplicates('string'),
  every: watch('string'), prune: watch('boolean'), trigger: watch('string'), updated: watch('string'),
  type: some('string', 'index'), measure: some('boolean', 'index'), m: some('string', 'index'), 'ef-construction': some('string', 'index'),
  columns: some('string', 'index'), items: some('string', 'index'), 'items-id': some('string', 'index'),
  workers: some('string', 'index'), memory: some('string', 'index'), replace: some('boolean', 'index'),
} as const;
const SEVERAL = {
  not: { ...some('string', 'search'), multiple: true }, 'not-image': { ...some('string', 'search'), multiple: true }, where: { ...some('string', 'search'), multiple: true },
} as const;
const HELP = { help: { type: 'boolean', short: 'h', default: false } } as const;

type Values = ReturnType<typeof parse>['values'];

/** Throws RefusedError with one sentence that names the flag or variable to give. */
export function parseOptions(args: readonly string[], env: NodeJS.ProcessEnv): Options {
  const { values, positionals } = parse(args);
  if (values.help) return { command: 'help' };
  const named = COMMANDS.find((command) => command === positionals[0]);
  const command = named ?? 'embed';
  const others = named === undefined ? positionals : positionals.slice(1);
  if (others.length > 1) throw new RefusedError(`One source at a time, not ${others.join(' and ')}.`);
  for (const [flag, { of }] of Object.entries({ ...FLAGS, ...SEVERAL })) {
    if (values[flag as keyof Values] !== undefined && !of.includes(command)) throw new RefusedError(`--${flag} is none of ${command} (--help lists the options).`);
  }
  const shared = sharedOptions(values, env);
  if (command === 'embed') return { ...catalogueOptions(shared, values, env, others[0]), command };
  if (command === 'watch') return watchOptions(catalogueOptions(shared, values, env, others[0]), values);
  if (command === 'search') return searchOptions(shared, values);
  if (others[0] !== undefined) throw new RefusedError(`${command} takes no source: ${others[0]}.${command === 'index' ? '' : ' Where its images are is told by --base.'}`);
  if (command === 'index') return indexOptions(shared, values);
  return command === 'duplicates' ? duplicatesOptions(shared, values) : migrateOptions(shared, values);
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: { ...FLAGS, ...SEVERAL, ...HELP }, allowPositionals: true });
  } catch (error) {
    throw new RefusedError(`${(error as Error).message} (--help lists the options)`);
  }
}

function sharedOptions(values: Values, env: NodeJS.ProcessEnv): SharedOptions {
  const database = values.database ?? env['DATABASE_URL'] ?? '';
  const table = values.table ?? 'image_embeddings';
  const server = values.server ?? env['CLIP_SERVER_URL'] ?? 'http://localhost:5000';
  const options = {
    database, table, server,
    apiKey: env['CLIP_API_KEY'],
    batch: count('batch', values.batch ?? '32'),
    concurrency: count('concurrency', values.concurrency ?? '4'),
    patienceMs: count('patience', values.patience ?? '600') * 1000,
    failures: values.failures ?? 'catalog-failures.jsonl',
    base: values.base,
  };
  if (database === '') throw new RefusedError('No database: give --database postgresql://... or set DATABASE_URL.');
  assertTable('table', table);
  return options;
}

function assertTable(flag: string, name: string): void {
  if (/^([A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]*$/.test(name)) return;
  throw new RefusedError(`--${flag} must be a plain name, or schema.name, not ${name}.`);
}

function catalogueOptions(shared: SharedOptions, values: Values, env: NodeJS.ProcessEnv, named: string | undefined): CatalogueOptions {
  if (values.encoding !== undefined) decoderOf(values.encoding);
  const source = named ?? (values.query === undefined ? env['CATALOG_SOURCE'] : undefined);
  const query = values.query ?? (named === undefined ? env['CATALOG_QUERY'] : undefined);
  if (source === undefined && query === undefined) {
    throw new RefusedError('No catalogue: name a folder, a .csv or a .jsonl file, or give --query (or set CATALOG_SOURCE).');
  }
  if (source !== undefined && query !== undefined) throw new RefusedError('Give either a source or --query, not both.');
  return {
    ...shared, source, query,
    queryDatabase: values['query-database'] ?? shared.database,
    idColumn: values['id-column'] ?? 'id',
    locationColumn: values['location-column'],
    encoding: values.encoding,
    create: values.create ?? false,
    index: values.index ?? false,
    reembed: values.reembed ?? false,
    recheck: values.recheck ?? false,
    dryRun: values['dry-run'] ?? false,
  };
}

function watchOptions(catalogue: CatalogueOptions, values: Values): WatchOptions {
  for (const flag of ['trigger', 'updated'] as const) {
    if (values[flag] !== undefined && catalogue.query === undefined) throw new RefusedError(`--${flag} goes with --query.`);
  }
  if (values.trigger !== undefined) assertTable('trigger', values.trigger);
  const { prune = false, trigger, updated } = values;
  return { ...catalogue, command: 'watch', everyMs: count('every', values.every ?? '5') * 1000, prune, trigger, updated };
}

function searchOptions(shared: SharedOptions, values: Values): SearchOptions {
  const { text, image } = values;
  if ((text === undefined) === (image === undefined)) throw new RefusedError('search needs either --text TEXT or --image FILE.');
  const { not = [], 'not-image': notImages = [], where = [] } = values;
  if (not.some((words) => words.trim() === '')) throw new RefusedError('--not needs words.');
  return { ...shared, command: 'search', text, image, limit: count('limit', values.limit ?? '10'), not, notImages, filters: filtersOf(where), json: values.json ?? false };
}

const COLUMN = /^[\p{L}_][\p{L}\p{N}_ ]*$/u;

function textsNamed({ columns, items, 'items-id': itemsId = 'id' }: Values): Texts | undefined {
  if (columns === undefined) {
    if (items !== undefined) throw new RefusedError('--items goes with --columns, which names those that are searched.');
    return undefined;
  }
  const names = columns.split(',').map((name) => name.trim());
  const odd = [...names, itemsId].find((name) => !COLUMN.test(name));
  if (odd !== undefined) throw new RefusedError(`--columns and --items-id must be plain names, not ${odd === '' ? 'empty' : odd}.`);
  if (items !== undefined) assertTable('items', items);
  return { columns: [...new Set(names)], items, itemsId };
}

function migrateOptions(shared: SharedOptions, values: Values): MigrateOptions {
  const steps = (['to', 'status', 'switch', 'rollback', 'drop'] as const).filter((flag) => values[flag] !== undefined);
  const [step] = steps;
  if (step === undefined || steps.length > 1) {
    throw new RefusedError('migrate needs one of --to MODEL, --status, --switch, --rollback and --drop MODEL.');
  }
  for (const flag of ['judgements', 'sample'] as const) {
    if (values[flag] !== undefined && step !== 'to') throw new RefusedError(`--${flag} goes with --to.`);
  }
  if (values.follow && !['to', 'switch', 'rollback'].includes(step)) throw new RefusedError('--follow goes with --to, --switch and --rollback.');
  return {
    ...shared, command: 'migrate', step,
    model: values.to ?? values.drop ?? '',
    toServer: values['to-server'] ?? shared.server,
    judgements: values.judgements,
    sample: values.sample === undefined ? undefined : count('sample', values.sample),
    follow: values.follow ?? false,
    allowMissing: values['allow-missing'] ?? false,
  };
}

function duplicatesOptions(shared: SharedOptions, values: Values): DuplicatesOptions {
  const threshold = values.threshold === undefined ? undefined : Number(values.threshold);
  if (threshold !== undefined && !(values.threshold?.trim() !== '' && threshold >= 0 && threshold <= 2)) {
    throw new RefusedError(`--threshold is a cosine distance, from 0 to 2, not ${values.threshold}.`);
  }
  if (threshold !== undefined && values.sample !== undefined) throw new RefusedError('--sample is of the measuring that --threshold does without.');
  return { ...shared, command: 'duplicates', threshold, sample: count('sample', values.sample ?? '100'), html: values.html, json: values.json ?? false };
}

function indexOptions(shared: SharedOptions, values: Values): IndexOptions {
  const { type = 'vector', memory, replace = false, measure = false } = values;
  if (!isKind(type)) throw new RefusedError(`--type must be one of ${Object.keys(KINDS).join(', ')}, not ${type}.`);
  if (memory !== undefined && !/^\d+(kB|MB|GB)$/.test(memory)) throw new RefusedError(`--memory must be a size such as 512MB or 2GB, not ${memory}.`);
  const [m, efConstruction] = [values.m, values['ef-construction']].map((value, i) => (value === undefined ? undefined : count(i === 0 ? 'm' : 'ef-construction', value)));
  if (m !== undefined && (m < 2 || m > 100)) throw new RefusedError(`--m must be from 2 to 100, not ${m}.`);
  if (efConstruction !== undefined && (efConstruction > 1000 || efConstruction < 4)) throw new RefusedError(`--ef-construction must be from 4 to 1000, not ${efConstruction}.`);
  return {
    ...shared, command: 'index', type, memory, replace, measure, m, efConstruction, texts: textsNamed(values),
    sample: values.sample === undefined ? undefined : count('sample', values.sample),
    workers: values.workers === undefined ? undefined : count('workers', values.workers, 0),
    json: values.json ?? false,
  };
}

function count(flag: string, value: string, least = 1): number {
  const number = Number(value);
  if (!Number.isInteger(number) || number < least || value.trim() === '') throw new RefusedError(`--${flag} must be a whole number above ${least - 1}, not ${value}.`);
  return number;
}
