/** Every flag and the commands it belongs to. Reads no value. */
import { parseArgs } from 'node:util';
import { RefusedError } from '../errors.ts';

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

export type Values = ReturnType<typeof parse>['values'];

/** The command, its values and its source, if it names one. Throws RefusedError for a flag that is none of the command's. */
export function readFlags(args: readonly string[]): { command: Command | 'help'; values: Values; source: string | undefined } {
  const { values, positionals } = parse(args);
  if (values.help) return { command: 'help', values, source: undefined };
  const named = COMMANDS.find((command) => command === positionals[0]);
  const command = named ?? 'embed';
  const others = named === undefined ? positionals : positionals.slice(1);
  if (others.length > 1) throw new RefusedError(`One source at a time, not ${others.join(' and ')}.`);
  for (const [flag, { of }] of Object.entries({ ...FLAGS, ...SEVERAL })) {
    if (values[flag as keyof Values] !== undefined && !of.includes(command)) throw new RefusedError(`--${flag} is none of ${command} (--help lists the options).`);
  }
  return { command, values, source: others[0] };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: { ...FLAGS, ...SEVERAL, ...HELP }, allowPositionals: true });
  } catch (error) {
    throw new RefusedError(`${(error as Error).message} (--help lists the options)`);
  }
}
