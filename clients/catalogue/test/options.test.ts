import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RefusedError } from '../src/errors.ts';
import { parseOptions } from '../src/options.ts';
import type { EmbedOptions } from '../src/options/catalogue.ts';

const embedding = (args: string[], variables: NodeJS.ProcessEnv): EmbedOptions => {
  const options = parseOptions(args, variables);
  assert.equal(options.command, 'embed');
  return options as EmbedOptions;
};

const env = { DATABASE_URL: 'postgresql://db' };

test('without arguments the environment says what to do', () => {
  const options = embedding([], { ...env, CATALOG_SOURCE: 'images', CLIP_SERVER_URL: 'http://clip:5000', CLIP_API_KEY: 'k' });
  assert.deepEqual(
    [options.command, options.source, options.database, options.server, options.apiKey, options.table],
    ['embed', 'images', 'postgresql://db', 'http://clip:5000', 'k', 'image_embeddings'],
  );
});

test('the command line wins over the environment', () => {
  const options = embedding(['embed', 'other', '--database', 'postgresql://x'], { ...env, CATALOG_SOURCE: 'p', CATALOG_QUERY: 'q' });
  assert.deepEqual([options.source, options.query, options.database], ['other', undefined, 'postgresql://x']);
  assert.deepEqual(embedding(['--query', 'SELECT 1, 2'], { ...env, CATALOG_SOURCE: 'p' }).source, undefined);
});

test('a folder may be called search or embed when the command is named', () => {
  assert.equal(embedding(['embed', 'search'], env).source, 'search');
});

test('an index is made by as many as it is told, also by one', () => {
  const options = parseOptions(['index', '--type', 'bit', '--workers', '0'], env);
  assert.ok(options.command === 'index');
  assert.deepEqual([options.type, options.workers, options.memory, options.replace], ['bit', 0, undefined, false]);
});

test('conditions on columns are read with their operators, and a column told twice may have either value', () => {
  const options = parseOptions(['search', '--text', 'a', '--where', 'kind=a=b', '--where', 'price >=5', '--where', 'price<9', '--where', 'kind=', '--where', 'x!=y'], env);
  assert.ok(options.command === 'search');
  assert.deepEqual(options.filters, { kind: ['a=b', ''], price: { '>=': '5', '<': '9' }, x: { '<>': 'y' } });
});

test('what cannot be meant is refused in one line that names the flag', () => {
  const cases: [string[], RegExp][] = [
    [[], /No catalogue/],
    [['a', 'b'], /One source at a time/],
    [['a', '--query', 'SELECT 1'], /not both/],
    [['a', '--batch', '0'], /--batch/],
    [['a', '--batch', 'many'], /--batch/],
    [['a', '--tabel', 'x'], /--tabel/],
    [['a', '--table', 'x; DROP TABLE y'], /--table/],
    [['search'], /--text TEXT or --image FILE/],
    [['search', '--text', 'a', '--image', 'b'], /--text TEXT or --image FILE/],
    [['migrate'], /--to MODEL, --status/],
    [['migrate', '--to', 'b', '--switch'], /one of --to MODEL/],
    [['migrate', 'photos', '--to', 'b'], /takes no source: photos.*--base/],
    [['migrate', '--status', '--follow'], /--follow goes with --to/],
    [['photos', '--to', 'b'], /--to is none of embed/],
    [['index', '--type', 'float16'], /--type must be one of vector, halfvec, bit/],
    [['index', '--memory', 'lots'], /--memory must be a size/],
    [['index', '--workers=-1'], /--workers must be a whole number above -1/],
    [['index', '--m', '1'], /--m must be from 2 to 100/],
    [['index', '--ef-construction', '3'], /--ef-construction must be from 4 to 1000/],
    [['index', '--columns', 'name,'], /plain names, not empty/],
    [['index', '--columns', 'na"me'], /plain names/],
    [['index', '--items', 'products'], /--items goes with --columns/],
    [['index', '--columns', 'a', '--items', 'x y'], /--items must be a plain name/],
    [['search', '--text', 'a', '--not', ' '], /--not needs words/],
    [['search', '--text', 'a', '--where', 'price'], /--where must be column=value/],
    [['search', '--text', 'a', '--where', '=5'], /--where must be column=value/],
    [['search', '--text', 'a', '--where', 'p=5', '--where', 'p<9'], /p cannot be told by = and compared/],
    [['index', '--where', 'a=1'], /--where is none of index/],
    [['index', 'photos'], /index takes no source: photos/],
    [['search', '--text', 'a', '--type', 'bit'], /--type is none of search/],
    [['migrate', '--to', 'b', '--create'], /--create is none of migrate/],
    [['watch'], /No catalogue/],
    [['watch', 'photos', '--reembed'], /--reembed is none of watch/],
    [['watch', 'photos', '--trigger', 'products'], /--trigger goes with --query/],
    [['watch', 'photos', '--updated', 'at'], /--updated goes with --query/],
    [['watch', '--query', 'SELECT 1', '--trigger', 'x; DROP TABLE y'], /--trigger must be a plain name/],
    [['watch', 'photos', '--every', '0'], /--every/],
    [['photos', '--prune'], /--prune is none of embed/],
    [['duplicates', 'photos'], /takes no source: photos.*--base/],
    [['duplicates', '--threshold', '3'], /--threshold is a cosine distance, from 0 to 2, not 3/],
    [['duplicates', '--threshold', ' '], /--threshold is a cosine distance/],
    [['duplicates', '--threshold', '0.1', '--sample', '5'], /--sample is of the measuring/],
    [['search', '--text', 'a', '--html', 'x'], /--html is none of search/],
  ];
  for (const [args, message] of cases) {
    assert.throws(() => parseOptions(args, env), (error: unknown) => error instanceof RefusedError && message.test(error.message), args.join(' '));
  }
  assert.throws(() => parseOptions(['a'], {}), /DATABASE_URL/);
});
