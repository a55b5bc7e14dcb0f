/**
 * Functions in the database that compare words in English, Japanese and other languages without an extension: pg_trgm knows no Japanese
 * letter where the locale is C, and elsewhere misses a word that does not stand first.
 */

const HIRAGANA = range(0x3041, 0x3096);
const KATAKANA = range(0x30a1, 0x30f6);
/** Scripts without spaces between words: kana, Han, Hangul, and the marks that stand for letters among them. */
const UNSPACED = '\\u3005-\\u3007\\u3040-\\u30ff\\u3400-\\u9fff\\uac00-\\ud7af\\uf900-\\ufaff';
/** What separates words beside spaces and ASCII's punctuation, after NFKC. */
const MARKS = '\\u00a1\\u00ab\\u00b7\\u00bb\\u00bf\\u2010-\\u2027\\u2030-\\u205e\\u2190-\\u2bff\\u3000-\\u3004\\u3008-\\u3020\\u3030\\u30a0\\u30fb';

function range(first: number, last: number): string {
  return Array.from({ length: last - first + 1 }, (_, i) => String.fromCharCode(first + i)).join('');
}

/**
 * The text as it is compared: widths and forms of letters as one (NFKC), small letters, katakana as hiragana, one space for whatever stands
 * between words, one before and after each run of a script without spaces, and around the whole.
 */
export const plainFunction = (name: string): string => `
  CREATE OR REPLACE FUNCTION ${name}(t text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $plain$
    SELECT ' ' || btrim(regexp_replace(regexp_replace(regexp_replace(
      translate(lower(normalize(t, NFKC)), '${KATAKANA}', '${HIRAGANA}'),
      '[[:space:][:punct:]${MARKS}]+', ' ', 'g'), '([${UNSPACED}])([^ ${UNSPACED}])', '\\1 \\2', 'g'), '([^ ${UNSPACED}])([${UNSPACED}])', '\\1 \\2', 'g')) || ' '
  $plain$`;

/** The pieces of a text by which it is found: three letters, as pg_trgm has them, or two of a script without spaces, and each of these by itself. */
export const gramsFunction = (name: string, plain: string): string => `
  CREATE OR REPLACE FUNCTION ${name}(t text) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $grams$
    SELECT coalesce(array_agg(DISTINCT gram), '{}') FROM (
      SELECT unspaced, c, lead(c) OVER letters AS c2, lead(c, 2) OVER letters AS c3
      FROM unnest(string_to_array(btrim(${plain}(t)), ' ')) WITH ORDINALITY AS r (run, n)
      CROSS JOIN LATERAL (SELECT run ~ '^[${UNSPACED}]' AS unspaced) AS k
      CROSS JOIN LATERAL unnest(string_to_array(CASE WHEN unspaced THEN run ELSE ' ' || run || ' ' END, NULL)) WITH ORDINALITY AS l (c, i)
      WINDOW letters AS (PARTITION BY n ORDER BY i)) AS s
    CROSS JOIN LATERAL unnest(CASE WHEN unspaced THEN ARRAY[c, c || c2] ELSE ARRAY[c || c2 || c3] END) AS gram WHERE gram IS NOT NULL
  $grams$`;

/** A word of a text without its padding: within a run of a script without spaces any part is a word. */
export const word = (plain: string): string => `CASE WHEN ${plain} ~ '[${UNSPACED}]' THEN btrim(${plain}) ELSE ${plain} END`;
