/** Names of tables and of what belongs to them, quoted for SQL. A table is a plain identifier, or schema.identifier. */

/** PostgreSQL cuts longer names, in bytes; ours are ASCII. */
const LONGEST = 63;
/** What is put behind a table's name at most: its HNSW index of the longest kind. */
const LONGEST_SUFFIX = '_embedding_hnsw_halfvec'.length;

export const quoted = (name: string): string => name.split('.').map((part) => `"${part}"`).join('.');

/** The table's name without its schema. */
export const bare = (name: string): string => name.split('.').at(-1) ?? name;

/** `other` in the schema of `table`. */
export const beside = (table: string, other: string): string => (table.includes('.') ? `${table.split('.')[0]}.${other}` : other);

/** What belongs to a table carries its name: image_embeddings and current make image_embeddings_current. */
export const belonging = (table: string, suffix: string): string => beside(table, `${bare(table).slice(0, LONGEST - suffix.length - 1)}_${suffix}`);

/** A name for the table of `model` beside `table`; `taken` are those that other models have. */
export function twinName(table: string, model: string, taken: readonly string[]): string {
  const word = model.toLowerCase().replace(/[^a-z0-9]+/g, '_').replace(/^_+|_+$/g, '') || 'model';
  for (let number = 1; ; number++) {
    const tail = `_${word.slice(0, 30)}${number === 1 ? '' : `_${number}`}`;
    const name = bare(table).slice(0, LONGEST - LONGEST_SUFFIX - tail.length) + tail;
    if (!taken.includes(name)) return beside(table, name);
  }
}

export const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`;
