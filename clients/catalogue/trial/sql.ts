/** The page's blocks of SQL, each in a database that has what it speaks of. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import pg from 'pg';
import type { Postgres } from '../test/support/postgres.ts';
import { REPOSITORY } from '../../typescript/test/support/server.ts';

const ROWS = 300;
const DIMENSIONS = 512;

export type SqlStep = readonly [kind: string, of: RegExp, act: (block: string) => Promise<unknown>];

/** Its steps in the order of the page. `embed` gives the vector of the question. */
export function blocksOfSql(postgres: Postgres, embed: () => Promise<Float32Array>): readonly SqlStep[] {
  const vector = `[${Array.from({ length: DIMENSIONS }, (_, i) => Math.sin(i + 1)).join(',')}]`;
  const urlOf = (database: string): string => postgres.url.replace(/\w+$/, database);
  const own = (text: string, values: readonly unknown[] = []): Promise<Record<string, unknown>[]> => postgres.query(text, values, 'printed');
  return [
    ['sql', /^CREATE TABLE image_embeddings/, async (block) => {
      await postgres.query('CREATE DATABASE printed');
      await own('CREATE EXTENSION vector');
      await own(block);
      await own(`INSERT INTO image_embeddings SELECT 'p' || i, 'x.png', '00', 'ours', (SELECT array_agg(sin(i * k) ORDER BY k) FROM generate_series(1, ${DIMENSIONS}) AS k)::vector FROM generate_series(1, ${ROWS}) AS i`);
    }],
    ['sql', /^SELECT id, 1 - \(embedding <=> \$1\) AS similarity FROM image_embeddings ORDER BY/, async (block) => {
      const rows = await own(block, [vector]);
      assert.deepEqual([rows.length, rows[0]?.['id']], [20, 'p1']);
    }],
    ['sql', /image_embeddings_search/, async (block) => {
      // A database of its own, in which the catalogue of the page's examples is the only one.
      await postgres.query('CREATE DATABASE named');
      const catalogue = (...args: string[]): Buffer => execFileSync('node', ['--import', 'tsx', 'scripts/generate-embeddings-from-catalog.ts', ...args, '--database', urlOf('named')], { cwd: REPOSITORY });
      catalogue('examples', '--create');
      await postgres.query(readFileSync(path.join(REPOSITORY, 'clients/catalogue/examples/names.sql'), 'utf8'), [], 'named');
      catalogue('index', '--columns', 'code,name,name_ja', '--items', 'drawings', '--items-id', 'file');
      const [row] = await postgres.query<{ id: string }>('SELECT embedding_id AS id FROM image_embeddings LIMIT 1', [], 'named');
      const hits = await postgres.query(block, [`[${(await embed()).join(',')}]`, row?.id], 'named');
      assert.deepEqual(hits.map(({ id }) => id).sort(), ['blue-heart.png', 'green-heart.png']);
    }],
    ['sql', /^SET hnsw\.ef_search = 100;/, async (block) => {
      const [set = '', select = ''] = block.split(';\n');
      await own('CREATE INDEX ON image_embeddings USING hnsw ((embedding::halfvec(512)) halfvec_cosine_ops)');
      const session = new pg.Client({ connectionString: urlOf('printed') });
      await session.connect();
      await session.query(set);
      const { rows } = await session.query<{ id: string }>(select, [vector]);
      await session.end();
      assert.deepEqual([rows.length, rows[0]?.id], [20, 'p1']);
    }],
  ];
}
