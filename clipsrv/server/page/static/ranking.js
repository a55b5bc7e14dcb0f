/** Which images come first: the arithmetic of likeness, of unit vectors. Knows nothing of the page. */

/**
 * The cosine of two unit vectors.
 * @param {Float32Array} a
 * @param {Float32Array} b
 */
export function cosine(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += /** @type {number} */ (a[i]) * /** @type {number} */ (b[i]);
  return sum;
}

/**
 * Entries with their likeness to `query`, best first; those without a vector of that length come last, with none.
 * @template {{vector: Float32Array | null}} T
 * @param {readonly T[]} entries
 * @param {Float32Array} query
 * @returns {{entry: T, score: number | null}[]}
 */
export function ranked(entries, query) {
  const rows = entries.map((entry) => ({
    entry,
    score: entry.vector?.length === query.length ? cosine(entry.vector, query) : null,
  }));
  return rows.sort((a, b) => (b.score ?? -2) - (a.score ?? -2)); // stable: equals stay as they came
}
