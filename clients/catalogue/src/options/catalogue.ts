/** Where a catalogue comes from and how its table is filled: what `embed` and `watch` are told. */
import { RefusedError } from '../errors.ts';
import { decoderOf } from '../text.ts';
import type { Values } from './flags.ts';
import { assertTable, count, type SharedOptions } from './shared.ts';

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

export function catalogueOptions(shared: SharedOptions, values: Values, env: NodeJS.ProcessEnv, named: string | undefined): CatalogueOptions {
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

export function watchOptions(catalogue: CatalogueOptions, values: Values): WatchOptions {
  for (const flag of ['trigger', 'updated'] as const) {
    if (values[flag] !== undefined && catalogue.query === undefined) throw new RefusedError(`--${flag} goes with --query.`);
  }
  if (values.trigger !== undefined) assertTable('trigger', values.trigger);
  const { prune = false, trigger, updated } = values;
  return { ...catalogue, command: 'watch', everyMs: count('every', values.every ?? '5') * 1000, prune, trigger, updated };
}
