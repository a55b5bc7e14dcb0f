/**
 * TABLE_search, the function in the database that finds images by vector and by words at once; `search` and a shop both call it. It looks
 * for the current model's table and its index when it is called, so that it outlives a change of models.
 */
import type pg from 'pg';
import type { Database } from '../database.ts';
import { RefusedError } from '../errors.ts';
import { KINDS, MAX_EF_SEARCH } from '../indexes/kinds.ts';
import type { Plan } from '../indexes/make.ts';
import { lock, schemaOf } from '../tables/catalogue.ts';
import { bare, belonging, literal, quoted } from '../tables/names.ts';
import { gramsFunction, plainFunction, word } from './words.ts';

/** What is searched beside the vectors. */
export interface Texts {
  readonly columns: readonly string[];
  /** The table or view that has them, if it is not the catalogue's own; with its column that has the catalogue's ids. */
  readonly items: string | undefined;
  readonly itemsId: string;
}

export const NO_TEXTS: Texts = { columns: [], items: undefined, itemsId: 'id' };

/** Reciprocal rank fusion: 60 is the constant of its authors (Cormack, Clarke and Buettcher, SIGIR 2009). */
const K = 60;
/** Characters of a query whose words are looked for: more is no name. */
const LONGEST_QUERY = 1000;
/** Of the pieces of a query so many must be in a text: pg_trgm's own word_similarity_threshold. */
const SHARE = 0.6;
/** Ranks that are fused: of the vectors, and of each column. */
const RANKS = 100;
/**
 * How much likeness to what is not wanted counts against an image, of likeness to what is. Twice as much does no better, and more finds what
 * is neither: bench/unwanted.ts.
 */
const NOT = 0.25;

export const functionName = (catalogue: string): string => belonging(catalogue, 'search');

/** What TABLE_search was made for, or undefined if it is not there. */
export async function textsOf(database: Database, catalogue: string): Promise<Texts | undefined> {
  const [found] = await database.query<{ note: string | null }>(
    "SELECT obj_description(oid, 'pg_proc') AS note FROM pg_proc WHERE oid = to_regproc($1)", [quoted(functionName(catalogue))],
  );
  if (found === undefined) return undefined;
  try {
    return { ...NO_TEXTS, ...(JSON.parse(found.note ?? '') as Partial<Texts>) };
  } catch {
    throw new RefusedError(`${functionName(catalogue)} is another's function, or its comment was changed: DROP FUNCTION it, and run index again.`);
  }
}

/** The index by which rows are found that hold pieces of a query in a column of `relation`. */
export const gramsIndex = (catalogue: string, relation: string, column: string): Plan => ({
  table: relation,
  name: bare(belonging(relation, `${column.slice(0, LONGEST_COLUMN)}_grams`)),
  using: `USING gin (${quoted(belonging(catalogue, 'grams'))}("${column}"))`,
});

/** In the name of an index. */
const LONGEST_COLUMN = 30;

/** Makes TABLE_search, with what it needs. Throws RefusedError for columns that are not there or have no text. */
export async function makeFunction(database: Database, catalogue: string, table: string, texts: Texts): Promise<void> {
  await database.transaction(async (client) => {
    await lock(client);
    // What the function sets must be known before it may be named.
    await client.query("SELECT '[1]'::vector");
    const schema = await schemaOf(client, table);
    const within = (suffix: string): string => `${schema}.${quoted(bare(belonging(catalogue, suffix)))}`;
    const [plain, grams, search] = [within('plain'), within('grams'), within('search')];
    if (texts.columns.length > 0) {
      await checkColumns(client, table, texts);
      await client.query(plainFunction(plain));
      await client.query(gramsFunction(grams, plain));
    }
    const { rows } = await client.query<{ there: boolean }>("SELECT current_setting('hnsw.iterative_scan', true) IS NOT NULL AS there");
    await client.query(searchFunction({ catalogue, schema, table, texts, plain, grams, search, iterates: rows[0]?.there ?? false }));
    await client.query(`COMMENT ON FUNCTION ${search} IS ${literal(JSON.stringify(texts))}`);
  });
}

async function checkColumns(client: pg.PoolClient, table: string, { columns, items, itemsId }: Texts): Promise<void> {
  const { rows: encodings } = await client.query<{ server_encoding: string }>('SHOW server_encoding');
  if (encodings[0]?.server_encoding !== 'UTF8') throw new RefusedError(`Words are searched in databases of UTF8; this one is of ${encodings[0]?.server_encoding}.`);
  const where = items ?? table;
  const { rows } = await client.query<{ name: string; text: boolean }>(
    `SELECT a.attname AS name, t.typcategory = 'S' AS text FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
     WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped`,
    [quoted(where)],
  );
  if (rows.length === 0) throw new RefusedError(`There is no table or view ${where}.`);
  const missing = [...columns, ...(items === undefined ? [] : [itemsId])].filter((name) => !rows.some((row) => row.name === name));
  if (missing.length > 0) throw new RefusedError(`${where} has no column ${missing.join(', ')}; it has ${rows.map(({ name }) => name).join(', ')}.`);
  const odd = columns.filter((name) => rows.some((row) => row.name === name && !row.text));
  if (odd.length > 0) throw new RefusedError(`The column ${odd.join(', ')} of ${where} is no text.`);
}

interface Parts {
  readonly catalogue: string;
  readonly schema: string;
  readonly table: string;
  readonly texts: Texts;
  readonly plain: string;
  readonly grams: string;
  readonly search: string;
  /** pgvector goes on in an index where conditions leave too few rows (from 0.8 on). */
  readonly iterates: boolean;
}

function searchFunction({ catalogue, schema, table, texts, plain, grams, search, iterates }: Parts): string {
  const { columns, items, itemsId } = texts;
  const models = `${schema}.${quoted(bare(belonging(catalogue, 'models')))}`;
  const itemsTable = items === undefined ? 'NULL' : literal(quoted(items));
  const from = items === undefined ? '%1$s AS e' : `%1$s AS e JOIN ${quoted(items)} AS i ON i."${itemsId}"::text = e.id`;
  const value = (column: string): string => `${items === undefined ? 'e' : 'i'}."${column}"`;
  const kinds = Object.values(KINDS);
  const ways = kinds.map(({ name, operators, distance, taken }) =>
    `WHEN ${literal(operators)} THEN nearest := replace(${literal(distance(0, '$1').replace(/\bembedding\b/, 'e.embedding'))}, '(0)', '(' || dimensions || ')'); again := ${name === 'vector' ? RANKS : taken(RANKS)};`);
  // Distances of texts and of images have scales of their own: each is told in deviations from its mean over the nearest.
  const deviation = (distance: string, window: string): string => `coalesce((${distance} - avg(${distance}) OVER ${window}) / nullif(stddev_pop(${distance}) OVER ${window}, 0), 0)`;
  const nearest = `
    WITH candidates AS (
      SELECT * FROM (SELECT e.id, e.embedding, e.embedding <=> $1 AS distance FROM ${from} WHERE e.embedding_id = $2 AND %2$s %3$s) AS c
      ORDER BY c.distance, c.id LIMIT $4)
    SELECT coalesce(array_agg(r.id ORDER BY r.rating, r.id), '{}') FROM (
      SELECT w.id, w.z - ${NOT} * coalesce(u.z, 0) AS rating FROM (SELECT c.id, ${deviation('c.distance', '()')} AS z FROM candidates AS c) AS w
      LEFT JOIN (SELECT n.id, min(n.z) AS z FROM (
          SELECT c.id, ${deviation('(c.embedding <=> v.vector)', '(PARTITION BY v.i)')} AS z FROM candidates AS c CROSS JOIN unnest($3) WITH ORDINALITY AS v (vector, i)
        ) AS n GROUP BY n.id) AS u ON u.id = w.id) AS r`;
  // A list for each column: the rows that have most of the query in it, those first that are it, then those that have more of it, and less else.
  const lists = columns.map((column, i) => `UNION ALL
      SELECT * FROM (SELECT ${literal(column)}, c.id, c.value, c.share, c.exact, row_number() OVER (ORDER BY c.exact DESC, c.share DESC, length(c.p), c.id) AS rank
        FROM (SELECT e.id, ${value(column)}::text AS value, l.p, replace(l.p, ' ', '') = ANY ($5) AS exact,
                (SELECT count(*) FROM unnest($3) AS g WHERE strpos(l.p, g) > 0)::float8 / cardinality($3) AS share
              FROM ${from} CROSS JOIN LATERAL (SELECT ${plain}(${value(column)}) AS p OFFSET 0) AS l
              WHERE e.embedding_id = $2 AND %2$s AND %${i + 3}$s) AS c WHERE c.share >= ${SHARE} OR c.exact) AS ranked WHERE rank <= ${RANKS}`);
  const fused = `
    WITH lists AS (
      SELECT NULL::text AS name, v.id, NULL::text AS value, NULL::float8 AS share, false AS exact, v.rank FROM unnest($6) WITH ORDINALITY AS v (id, rank)
      ${lists.join('\n')}),
    best AS (SELECT DISTINCT ON (l.name, l.id) l.* FROM lists AS l ORDER BY l.name, l.id, l.rank),
    fused AS (
      SELECT l.id, sum(1.0 / (${K} + l.rank))::float8 AS score, bool_or(l.exact) AS exact, min(l.rank) FILTER (WHERE l.name IS NULL)::integer AS vector_rank,
        coalesce(jsonb_agg(jsonb_build_object('column', l.name, 'text', l.value, 'rank', l.rank, 'share', l.share, 'exact', l.exact) ORDER BY l.rank, l.name)
          FILTER (WHERE l.name IS NOT NULL), '[]') AS texts FROM best AS l GROUP BY l.id)
    SELECT f.id, e.location, f.score, f.exact, 1 - (e.embedding <=> $1), f.vector_rank, f.texts FROM fused AS f JOIN %1$s AS e ON e.id = f.id
    ORDER BY f.exact DESC, f.score DESC, f.vector_rank, f.id LIMIT $7`;
  const unwanted = columns.map((column) => ` AND NOT coalesce(strpos(${plain}(${value(column)}), ${word(`${plain}(%1$L)`)}) > 0, false)`);
  return `
    CREATE OR REPLACE FUNCTION ${search}(words text, vector vector, embedding_id text, hits integer DEFAULT 10, filters jsonb DEFAULT '{}',
      not_words text[] DEFAULT '{}', not_vectors vector[] DEFAULT '{}')
    RETURNS TABLE (id text, location text, score float8, exact boolean, similarity float8, vector_rank integer, texts jsonb)
    LANGUAGE plpgsql SET hnsw.ef_search = 100${iterates ? ' SET hnsw.iterative_scan = strict_order' : ''} AS $search$
    DECLARE
      target text; dimensions integer; operators text; nearest text := 'e.embedding <=> $1'; again integer := ${RANKS}; wanted integer;
      conditions text := 'true'; filter_name text; filter jsonb; kind text; owner text; unwanted text;
      query_grams text[] := '{}'; rare text[] := '{}'; exacts text[] := '{}'; codes text[] := '{}'; ids text[] := '{}'; conditions_of text[] := '{}'; indexes oid[];
    BEGIN
      IF hits IS NULL OR hits < 1 THEN RAISE EXCEPTION 'hits must be at least 1' USING ERRCODE = 'invalid_parameter_value'; END IF;
      IF to_regclass(${literal(models)}) IS NOT NULL THEN
        EXECUTE ${literal(`SELECT ${literal(`${schema}.`)} || quote_ident(m.table_name) FROM ${models} AS m WHERE m.is_current`)} INTO target;
      END IF;
      target := coalesce(target, ${literal(`${schema}.${quoted(bare(table))}`)});
      SELECT a.atttypmod INTO dimensions FROM pg_attribute AS a WHERE a.attrelid = to_regclass(target) AND a.attname = 'embedding';
      -- A vector of another model's length can be compared with none of these rows.
      IF vector IS NOT NULL AND vector_dims(vector) <> dimensions THEN RETURN; END IF;
      SELECT o.opcname INTO operators FROM pg_index AS x JOIN pg_opclass AS o ON o.oid = x.indclass[0] JOIN pg_am AS m ON m.oid = o.opcmethod
        WHERE x.indrelid = to_regclass(target) AND x.indisvalid AND x.indpred IS NULL AND m.amname = 'hnsw'
          AND o.opcname IN (${kinds.map(({ operators }) => literal(operators)).join(', ')})
        ORDER BY array_position(ARRAY[${kinds.map(({ operators }) => literal(operators)).join(', ')}], o.opcname::text) LIMIT 1;
      CASE operators
        ${ways.join('\n        ')}
        ELSE NULL;
      END CASE;

      FOR filter_name, filter IN SELECT f.key, f.value FROM jsonb_each(filters) AS f LOOP
        SELECT format_type(a.atttypid, a.atttypmod), o.alias INTO kind, owner
          FROM (VALUES (1, 'i', to_regclass(${itemsTable})), (2, 'e', to_regclass(target))) AS o (place, alias, relation)
          JOIN pg_attribute AS a ON a.attrelid = o.relation AND a.attname = filter_name AND a.attnum > 0 AND NOT a.attisdropped ORDER BY o.place LIMIT 1;
        IF kind IS NULL THEN RAISE EXCEPTION 'there is no column % to filter by', filter_name USING ERRCODE = 'undefined_column'; END IF;
        conditions := conditions || CASE jsonb_typeof(filter)
          WHEN 'null' THEN format(' AND %s.%I IS NULL', owner, filter_name)
          WHEN 'array' THEN format(' AND %s.%I = ANY (%L::%s[])', owner, filter_name, ARRAY(SELECT jsonb_array_elements_text(filter))::text, kind)
          WHEN 'object' THEN (SELECT coalesce(string_agg(format(' AND %s.%I %s %L::%s', owner, filter_name,
              CASE WHEN f.key IN ('<', '<=', '>', '>=', '<>') THEN f.key ELSE '=' END, f.value, kind), ''), '') FROM jsonb_each_text(filter) AS f)
          ELSE format(' AND %s.%I = %L::%s', owner, filter_name, filter #>> '{}', kind) END;
      END LOOP;
      ${columns.length === 0 ? '' : `FOREACH unwanted IN ARRAY not_words LOOP
        IF btrim(${plain}(unwanted)) <> '' THEN conditions := conditions || format(${literal(unwanted.join(''))}, unwanted); END IF;
      END LOOP;`}

      IF vector IS NOT NULL THEN
        wanted := greatest(${RANKS}, hits);
        again := greatest(again, wanted);
        -- Of what the index gives the full vectors tell the order; where it gives too few, every row is compared.
        IF wanted <= ${MAX_EF_SEARCH} THEN
          PERFORM set_config('hnsw.ef_search', least(${MAX_EF_SEARCH}, again)::text, true);
          EXECUTE format(${literal(nearest)}, target, conditions, format('ORDER BY %s LIMIT %s', nearest, again)) INTO ids USING vector, embedding_id, not_vectors, wanted;
        END IF;
        IF cardinality(ids) < wanted THEN
          EXECUTE format(${literal(nearest)}, target, conditions, 'OFFSET 0') INTO ids USING vector, embedding_id, not_vectors, wanted;
        END IF;
      END IF;
      ${columns.length === 0 ? '' : wordsPart(texts, plain, grams, itemsTable)}
      RETURN QUERY EXECUTE format(${literal(fused)}, VARIADIC ARRAY[target, conditions] || conditions_of)
        USING vector, embedding_id, query_grams, rare, exacts, ids, hits;
    END $search$`;
}

/**
 * The pieces of the query; and of them the rarest, so many that a row with most of the query has at least one: for these an index over the
 * pieces of a column is asked. A word of the query with a digit is a code: a column that is the code is exact.
 */
const wordsPart = ({ columns, items }: Texts, plain: string, grams: string, itemsTable: string): string => `
      words := left(words, ${LONGEST_QUERY});
      IF btrim(${plain}(coalesce(words, ''))) <> '' THEN
        query_grams := ARRAY(SELECT g FROM unnest(${grams}(words)) AS g WHERE length(g) > 1 OR g = ANY (string_to_array(btrim(${plain}(words)), ' ')));
        codes := ARRAY(SELECT t FROM regexp_split_to_table(words, '\\s+') AS t WHERE t ~ '[0-9]' AND length(t) > 2);
        exacts := ARRAY(SELECT replace(${plain}(t), ' ', '') FROM unnest(words || codes) AS t);
      END IF;
      indexes := ARRAY(SELECT (SELECT min(x.indexrelid) FROM pg_index AS x JOIN pg_class AS c ON c.oid = x.indexrelid JOIN pg_am AS m ON m.oid = c.relam
          JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attname = n.name
          JOIN pg_depend AS d ON d.objid = x.indexrelid AND d.refobjid = x.indrelid AND d.refobjsubid = a.attnum
        WHERE x.indrelid = to_regclass(coalesce(${itemsTable}, target)) AND x.indisvalid AND x.indpred IS NULL AND m.amname = 'gin'
          AND position(${literal(bare(grams.split('.').at(-1) ?? '').replaceAll('"', ''))} IN pg_get_expr(x.indexprs, x.indrelid)) > 0)
        FROM unnest(ARRAY[${columns.map(literal).join(', ')}]) WITH ORDINALITY AS n (name, i) ORDER BY n.i);
      rare := ARRAY(SELECT g FROM unnest(query_grams) AS g LEFT JOIN (
          SELECT s.gram, max(s.frequency) AS frequency FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            JOIN pg_stats AS p ON p.schemaname = n.nspname AND p.tablename = c.relname
            CROSS JOIN LATERAL unnest(p.most_common_elems::text::text[], p.most_common_elem_freqs) AS s (gram, frequency)
          WHERE c.oid = ANY (indexes) GROUP BY s.gram) AS known ON known.gram = g
        ORDER BY known.frequency NULLS FIRST, g LIMIT cardinality(query_grams) - ceil(${SHARE} * cardinality(query_grams)) + 1)
        || ARRAY(SELECT g FROM unnest(codes) AS t CROSS JOIN LATERAL unnest(${grams}(t)) AS g);
      conditions_of := ARRAY(SELECT CASE WHEN cardinality(query_grams) = 0 THEN 'false' WHEN o.index IS NULL THEN 'true'
          ELSE format('%s(${items === undefined ? 'e' : 'i'}.%I) && $4', ${literal(grams)}, o.name) END
        FROM unnest(ARRAY[${columns.map(literal).join(', ')}], indexes) WITH ORDINALITY AS o (name, index, i) ORDER BY o.i);`;
