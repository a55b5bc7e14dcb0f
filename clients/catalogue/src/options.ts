/** The command line and the environment, as one checked object. Opens nothing. */
import { parseArgs } from 'node:util';
import { RefusedError } from './errors.ts';
import { decoderOf } from './text.ts';

export const USAGE = `Embed a catalogue of images into PostgreSQL with pgvector, and search it.

  generate-embeddings-from-catalog.ts [embed] SOURCE [options]
  generate-embeddings-from-catalog.ts search (--text TEXT | --image FILE) [options]

SOURCE        a folder of images, a .csv or .tsv, or a .jsonl/.ndjson file whose rows have an id and a path or URL;
              or leave it out and give --query. Environment: CATALOG_SOURCE, CATALOG_QUERY

  --query SQL               rows of (id, path or URL) from a database
  --query-database URL      where --query runs (default: --database)
  --id-column NAME          of a CSV or JSON line (default: id)
  --location-column NAME    of a CSV or JSON line (default: the first of path, url, location, image)
  --encoding NAME           of a CSV or JSON lines file (default: as its mark says, else utf-8): shift_jis, windows-1252, utf-16le
  --base FOLDER             relative paths are relative to this (default: the source's own folder)

  --database URL            postgresql://...  (environment: DATABASE_URL)
  --table NAME              default: image_embeddings
  --server URL              default: http://localhost:5000 (environment: CLIP_SERVER_URL; key: CLIP_API_KEY)

  --create                  create the vector extension and the table if they are not there
  --index                   create the HNSW index at the end if it is not there
  --reembed                 replace vectors of another model; without it the job refuses to mix them
  --recheck                 download images again whose URL is already done
  --dry-run                 say what would be done; write nothing

  --batch N                 images in a request and in a transaction (default: 32)
  --concurrency N           requests at once (default: 4)
  --patience SECONDS        how long to wait for a server or database that is away (default: 600)
  --failures FILE           where failures are listed, one JSON object a line (default: catalog-failures.jsonl)

  --limit N                 search: how many (default: 10)
  --json                    search: one JSON object a line

Exit status: 0 every image has its vector · 1 some images failed · 2 wrong use, or refused ·
3 the server or the database stayed away · 70 a bug in this program · 130 interrupted. Run the same command again to go on.
`;

export interface Options {
  readonly command: 'embed' | 'search' | 'help';
  readonly source: string | undefined;
  readonly query: string | undefined;
  readonly queryDatabase: string;
  readonly idColumn: string;
  readonly locationColumn: string | undefined;
  readonly encoding: string | undefined;
  readonly base: string | undefined;
  readonly database: string;
  readonly table: string;
  readonly server: string;
  readonly apiKey: string | undefined;
  readonly create: boolean;
  readonly index: boolean;
  readonly reembed: boolean;
  readonly recheck: boolean;
  readonly dryRun: boolean;
  readonly batch: number;
  readonly concurrency: number;
  readonly patienceMs: number;
  readonly failures: string;
  readonly text: string | undefined;
  readonly image: string | undefined;
  readonly limit: number;
  readonly json: boolean;
}

const FLAGS = {
  query: { type: 'string' },
  'query-database': { type: 'string' },
  'id-column': { type: 'string', default: 'id' },
  'location-column': { type: 'string' },
  encoding: { type: 'string' },
  base: { type: 'string' },
  database: { type: 'string' },
  table: { type: 'string', default: 'image_embeddings' },
  server: { type: 'string' },
  create: { type: 'boolean', default: false },
  index: { type: 'boolean', default: false },
  reembed: { type: 'boolean', default: false },
  recheck: { type: 'boolean', default: false },
  'dry-run': { type: 'boolean', default: false },
  batch: { type: 'string', default: '32' },
  concurrency: { type: 'string', default: '4' },
  patience: { type: 'string', default: '600' },
  failures: { type: 'string', default: 'catalog-failures.jsonl' },
  text: { type: 'string' },
  image: { type: 'string' },
  limit: { type: 'string', default: '10' },
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

/** Throws RefusedError with one sentence that names the flag or variable to give. */
export function parseOptions(args: readonly string[], env: NodeJS.ProcessEnv): Options {
  const { values, positionals } = parse(args);
  const [first, ...others] = positionals;
  const command = first === 'search' ? 'search' : 'embed';
  const sources = first === 'search' || first === 'embed' ? others : positionals;
  if (sources.length > 1) throw new RefusedError(`One source at a time, not ${sources.join(' and ')}.`);
  const database = values.database ?? env['DATABASE_URL'] ?? '';
  const options: Options = {
    command: values.help ? 'help' : command,
    source: sources[0] ?? (values.query === undefined ? env['CATALOG_SOURCE'] : undefined),
    query: values.query ?? (sources[0] === undefined ? env['CATALOG_QUERY'] : undefined),
    queryDatabase: values['query-database'] ?? database,
    idColumn: values['id-column'],
    locationColumn: values['location-column'],
    encoding: values.encoding,
    base: values.base,
    database,
    table: values.table,
    server: values.server ?? env['CLIP_SERVER_URL'] ?? 'http://localhost:5000',
    apiKey: env['CLIP_API_KEY'],
    create: values.create,
    index: values.index,
    reembed: values.reembed,
    recheck: values.recheck,
    dryRun: values['dry-run'],
    batch: count('batch', values.batch),
    concurrency: count('concurrency', values.concurrency),
    patienceMs: count('patience', values.patience) * 1000,
    failures: values.failures,
    text: values.text,
    image: values.image,
    limit: count('limit', values.limit),
    json: values.json,
  };
  if (options.command !== 'help') check(options);
  return options;
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: FLAGS, allowPositionals: true });
  } catch (error) {
    throw new RefusedError(`${(error as Error).message} (--help lists the options)`);
  }
}

function count(flag: string, value: string): number {
  const number = Number(value);
  if (!Number.isInteger(number) || number < 1) throw new RefusedError(`--${flag} must be a whole number above 0, not ${value}.`);
  return number;
}

function check(options: Options): void {
  if (options.encoding !== undefined) decoderOf(options.encoding);
  if (options.database === '') throw new RefusedError('No database: give --database postgresql://... or set DATABASE_URL.');
  if (!/^([A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]*$/.test(options.table)) {
    throw new RefusedError(`--table must be a plain name, or schema.name, not ${options.table}.`);
  }
  if (options.command === 'search') {
    if ((options.text === undefined) === (options.image === undefined)) {
      throw new RefusedError('search needs either --text TEXT or --image FILE.');
    }
  } else if (options.source === undefined && options.query === undefined) {
    throw new RefusedError('No catalogue: name a folder, a .csv or a .jsonl file, or give --query (or set CATALOG_SOURCE).');
  } else if (options.source !== undefined && options.query !== undefined) {
    throw new RefusedError('Give either a source or --query, not both.');
  }
}
