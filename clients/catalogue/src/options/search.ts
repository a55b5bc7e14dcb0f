/** What `search` is told. */
import { RefusedError } from '../errors.ts';
import { filtersOf, type Filters } from '../hybrid/filters.ts';
import type { Values } from './flags.ts';
import { count, type SharedOptions } from './shared.ts';

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

export function searchOptions(shared: SharedOptions, values: Values): SearchOptions {
  const { text, image } = values;
  if ((text === undefined) === (image === undefined)) throw new RefusedError('search needs either --text TEXT or --image FILE.');
  const { not = [], 'not-image': notImages = [], where = [] } = values;
  if (not.some((words) => words.trim() === '')) throw new RefusedError('--not needs words.');
  return { ...shared, command: 'search', text, image, limit: count('limit', values.limit ?? '10'), not, notImages, filters: filtersOf(where), json: values.json ?? false };
}
