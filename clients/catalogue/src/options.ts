/** The command line and the environment, as one checked object for each command. Opens nothing. */
import { RefusedError } from './errors.ts';
import { catalogueOptions, watchOptions, type EmbedOptions, type WatchOptions } from './options/catalogue.ts';
import { duplicatesOptions, type DuplicatesOptions } from './options/duplicates.ts';
import { readFlags } from './options/flags.ts';
import { indexOptions, type IndexOptions } from './options/index.ts';
import { migrateOptions, type MigrateOptions } from './options/migrate.ts';
import { searchOptions, type SearchOptions } from './options/search.ts';
import { sharedOptions } from './options/shared.ts';

export type Options = EmbedOptions | SearchOptions | MigrateOptions | DuplicatesOptions | WatchOptions | IndexOptions | { readonly command: 'help' };

/** Throws RefusedError with one sentence that names the flag or variable to give. */
export function parseOptions(args: readonly string[], env: NodeJS.ProcessEnv): Options {
  const { command, values, source } = readFlags(args);
  if (command === 'help') return { command };
  const shared = sharedOptions(values, env);
  if (command === 'embed') return { ...catalogueOptions(shared, values, env, source), command };
  if (command === 'watch') return watchOptions(catalogueOptions(shared, values, env, source), values);
  if (command === 'search') return searchOptions(shared, values);
  if (source !== undefined) throw new RefusedError(`${command} takes no source: ${source}.${command === 'index' ? '' : ' Where its images are is told by --base.'}`);
  if (command === 'index') return indexOptions(shared, values);
  return command === 'duplicates' ? duplicatesOptions(shared, values) : migrateOptions(shared, values);
}
