/** The HNSW indexes a catalogue can have: over its vectors, over their halves, over their signs; and how a query goes through each. */

export type KindName = 'vector' | 'halfvec' | 'bit';

export interface Kind {
  readonly name: KindName;
  /** Of the index, by pgvector's name. */
  readonly operators: string;
  /** pgvector indexes no more dimensions than these. */
  readonly mostDimensions: number;
  /** What is indexed, in the words of CREATE INDEX. */
  key(dimensions: number): string;
  /** The distance that the index knows of, from `to`, an SQL expression of the type vector. */
  distance(dimensions: number, to: string): string;
  /** How many rows to take from the index, of which the full vectors tell the `limit` best. */
  taken(limit: number): number;
}

/** pgvector's own bound of hnsw.ef_search, which bounds the rows that a scan gives. */
export const MAX_EF_SEARCH = 1000;
/** Rows that are looked at again: of what signs do not tell apart more is needed. The figures are in docs/catalogue.md. */
const AGAIN = { halfvec: 100, bit: 400 };
const EF_SEARCH = 100;

const within = (rows: number): number => Math.min(MAX_EF_SEARCH, rows);

/** How far a scan for so many rows searches. */
export const efSearch = (taken: number): number => within(Math.max(EF_SEARCH, taken));

export const KINDS: Readonly<Record<KindName, Kind>> = {
  vector: {
    name: 'vector', operators: 'vector_cosine_ops', mostDimensions: 2000,
    key: () => 'embedding',
    distance: (_, to) => `embedding <=> ${to}`,
    taken: (limit) => limit,
  },
  halfvec: {
    name: 'halfvec', operators: 'halfvec_cosine_ops', mostDimensions: 4000,
    key: (dimensions) => `(embedding::halfvec(${dimensions}))`,
    distance: (dimensions, to) => `embedding::halfvec(${dimensions}) <=> ${to}::halfvec(${dimensions})`,
    taken: (limit) => within(Math.max(AGAIN.halfvec, 2 * limit)),
  },
  bit: {
    name: 'bit', operators: 'bit_hamming_ops', mostDimensions: 64_000,
    key: (dimensions) => `(binary_quantize(embedding)::bit(${dimensions}))`,
    distance: (dimensions, to) => `binary_quantize(embedding)::bit(${dimensions}) <~> binary_quantize(${to})::bit(${dimensions})`,
    taken: (limit) => within(Math.max(AGAIN.bit, 10 * limit)),
  },
};

export const isKind = (name: string): name is KindName => name in KINDS;

export interface Settings {
  readonly m: number;
  readonly efConstruction: number;
}

const LARGE = 1_000_000;

/**
 * pgvector's defaults (16, 64) up to a million rows. Above, more links and a wider search while building: of M its authors say that 12 to
 * 48 suits most uses, and higher ones high recall in many dimensions (hnswlib, ALGO_PARAMS.md).
 */
export const settingsFor = (rows: number): Settings => (rows < LARGE ? { m: 16, efConstruction: 64 } : { m: 24, efConstruction: 128 });
