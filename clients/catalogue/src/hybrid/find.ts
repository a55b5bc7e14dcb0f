/** Asks TABLE_search: what a search wants and does not want, and why each hit was found. */
import type { Database } from '../database.ts';
import { RefusedError } from '../errors.ts';
import { quoted } from '../tables/names.ts';
import { vectorLiteral } from '../tables/table.ts';
import type { Filters } from './filters.ts';
import { functionName } from './function.ts';

export interface Wish {
  readonly words: string | undefined;
  readonly vector: Float32Array;
  readonly embeddingId: string;
  readonly limit: number;
  readonly filters: Filters;
  readonly notWords: readonly string[];
  readonly notVectors: readonly Float32Array[];
}

export interface FoundText {
  readonly column: string;
  readonly text: string;
  /** Among the rows that have most of the query in this column. */
  readonly rank: number;
  /** Of the query's pieces, so many are in it. */
  readonly share: number;
  readonly exact: boolean;
}

export interface Found {
  readonly id: string;
  readonly location: string;
  /** Fused from the ranks. */
  readonly score: number;
  /** A column is what was asked for, or a code that was. These come first. */
  readonly exact: boolean;
  readonly similarity: number;
  /** Among the nearest images; null for those that only words found. */
  readonly vector_rank: number | null;
  readonly texts: readonly FoundText[];
}

/** The hits, best first. Throws RefusedError for a column that is not there, and for a value that it cannot have. */
export async function find(database: Database, catalogue: string, wish: Wish): Promise<Found[]> {
  const { words, vector, embeddingId, limit, filters, notWords, notVectors } = wish;
  const values = [words ?? null, vectorLiteral(vector), embeddingId, limit, JSON.stringify(filters), notWords, notVectors.map(vectorLiteral)];
  try {
    return await database.query<Found>(`SELECT * FROM ${quoted(functionName(catalogue))}($1, $2::vector, $3, $4, $5, $6, $7::vector[])`, values);
  } catch (error) {
    const { code = '', message } = error as Error & { code?: string };
    // undefined_column, and what a type cannot hold.
    if (code === '42703' || /^22/.test(code)) throw new RefusedError(`--where: ${message}.`);
    throw error;
  }
}
