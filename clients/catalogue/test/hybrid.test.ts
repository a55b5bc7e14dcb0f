/** Searches by vector and words in one function of the database, in English and Japanese, by the oldest and the newest pgvector. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { REPOSITORY } from '../../typescript/test/support/server.ts';
import { Database } from '../src/database.ts';
import { RefusedError } from '../src/errors.ts';
import { filtersOf } from '../src/hybrid/filters.ts';
import { find, type Found, type Wish } from '../src/hybrid/find.ts';
import { gramsIndex, makeFunction, NO_TEXTS, textsOf } from '../src/hybrid/function.ts';
import { settingsFor } from '../src/indexes/kinds.ts';
import { hnsw, makeIndex } from '../src/indexes/make.ts';
import { publish } from '../src/tables/catalogue.ts';
import { VectorTable } from '../src/tables/table.ts';
import { dropTwin, makeCurrent, makeTwin } from '../src/tables/twin.ts';
import { launch } from './support/cli.ts';
import { INSTALLS, Postgres } from './support/postgres.ts';
import { Workshop } from './support/workshop.ts';

const DIMENSIONS = 8;
const SIGNAL = new AbortController().signal;
const COLOURS = [['red', '赤い'], ['blue', '青い'], ['green', '緑の'], ['yellow', '黄色い'], ['white', '白い'], ['black', '黒い']] as const;
const THINGS = [['dress', 'ドレス'], ['shirt', 'シャツ'], ['shoes', '靴'], ['hat', '帽子'], ['bag', 'バッグ'], ['coat', 'コート'], ['socks', '靴下'], ['scarf', 'マフラー']] as const;
const TEXTS = { columns: ['code', 'name', 'name_ja'], items: 'products', itemsId: 'sku' };

/** A direction for each thing, so that vectors know what is what and nothing of colours. */
const direction = (thing: number, angle = 0): Float32Array =>
  Float32Array.from({ length: DIMENSIONS }, (_, i) => (i === thing ? Math.cos(angle) : i === (thing + 1) % DIMENSIONS ? Math.sin(angle) : 0));

for (const version of Object.keys(INSTALLS) as (keyof typeof INSTALLS)[]) {
  describe(`pgvector, the ${version}`, () => {
    let postgres: Postgres;
    let database: Database;
    before(async () => {
      postgres = await Postgres.start(version);
      database = new Database({ url: postgres.url, patienceMs: 5000 });
      await stocked('shop');
      await postgres.query('CREATE TABLE products (sku text PRIMARY KEY, code varchar(20), name text, name_ja text, kind text, price numeric(8, 2))');
      const rows = COLOURS.flatMap(([colour, iro], c) => THINGS.map(([thing, mono], t) =>
        [`${colour}-${thing}`, `AB-${c}${t}0`, `${colour} ${thing}`, `${iro}${mono}`, t === 2 || t === 6 ? 'feet' : 'other', c === 5 ? null : String(10 * t + c)]));
      await postgres.query('INSERT INTO products SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::numeric[])', [0, 1, 2, 3, 4, 5].map((i) => rows.map((row) => row[i])));
      await makeFunction(database, 'shop', 'shop', TEXTS);
    });
    after(async () => {
      await database.close();
      await postgres.remove();
    });

    async function stocked(name: string): Promise<void> {
      const table = new VectorTable(database, name);
      await table.create(DIMENSIONS);
      await table.upsert(COLOURS.flatMap(([colour], c) => THINGS.map(([thing], t) => ({
        id: `${colour}-${thing}`, location: `${colour}-${thing}.png`, sha256: '00', embedding_id: 'ours', embedding: direction(t, 0.05 * c),
      }))));
    }

    const search = (words: string | undefined, thing: number, more: Partial<Wish> = {}, catalogue = 'shop'): Promise<Found[]> =>
      find(database, catalogue, { words, vector: direction(thing), embeddingId: 'ours', limit: 3, filters: {}, notWords: [], notVectors: [], ...more });
    const ids = (hits: readonly Found[]): string[] => hits.map(({ id }) => id);

    test('words are compared whatever their width, case, kana and punctuation, in a database that knows no letters but ASCII', async () => {
      const [row] = await postgres.query<{ plain: string[]; grams: string[]; ctype: string }>(
        `SELECT array(SELECT shop_plain(t) FROM unnest($1::text[]) WITH ORDINALITY AS s (t, i) ORDER BY i) AS plain, shop_grams('Tシャツ AB12') AS grams,
         (SELECT datctype FROM pg_database WHERE datname = current_database()) AS ctype`,
        [['ＲＥＤ　Dress', 'ﾊｰﾄ・赤い', 'は\u3099', 'AB-12/3', '「Tシャツ」', '、。', '']],
      );
      assert.deepEqual(row?.plain, [' red dress ', ' はーと 赤い ', ' ば ', ' ab 12 3 ', ' t しゃつ ', '  ', '  ']);
      assert.deepEqual(row.grams.sort(), [' ab', ' t ', 'ab1', 'b12', '12 ', 'し', 'しゃ', 'つ', 'ゃ', 'ゃつ'].sort());
      assert.equal(row.ctype, 'C');
    });

    test('an exact name or code comes first, however unlike its image is, and others by the sum of 1 / (60 + rank)', async () => {
      for (const words of ['white scarf', 'White  SCARF', 'WHITESCARF', '白いマフラー', '白いﾏﾌﾗｰ', 'AB-470', 'ab470', 'a warm thing, AB-470']) {
        const [first] = await search(words, 0);
        assert.deepEqual([first?.id, first?.exact], ['white-scarf', true], words);
        assert.ok(first?.texts.some(({ exact }) => exact));
      }
      const [first, second] = await search('red dress', 0);
      assert.deepEqual([first?.id, first?.vector_rank, first?.texts], ['red-dress', 1, [{ column: 'name', text: 'red dress', rank: 1, share: 1, exact: true }]]);
      assert.equal(first?.score.toFixed(9), (2 / 61).toFixed(9));
      assert.equal(first?.similarity, 1);
      assert.deepEqual([second?.id, second?.vector_rank, second?.exact], ['blue-dress', 2, false]);
    });

    test('a Japanese word is found at the start, in the middle and at the end of a name, also one of a single letter', async () => {
      for (const [words, wanted] of [['マフラー', 'scarf'], ['帽子', 'hat'], ['下', 'socks']] as const) {
        const hits = await search(words, 0, { limit: 6 });
        const named = hits.filter(({ texts }) => texts.length > 0);
        assert.ok(named.length > 0 && named.every(({ id }) => id.endsWith(wanted)), `${words}: ${ids(hits).join()}`);
      }
      const shoes = await search('靴', 0, { limit: 40 });
      assert.equal(shoes.filter(({ texts }) => texts.length > 0).length, 12);
      assert.equal((await search('赤い靴', 0))[0]?.id, 'red-shoes');
    });

    test('words that are in no name leave the order to the vectors, and so does an image', async () => {
      for (const words of ['something fine', undefined, '', '、']) {
        const hits = await search(words, 3);
        assert.deepEqual([ids(hits), hits.map(({ vector_rank: rank }) => rank)], [['red-hat', 'blue-hat', 'green-hat'], [1, 2, 3]]);
      }
    });

    test('what is not wanted goes: its words from the names, and images that are like it', async () => {
      const dresses = async (...notWords: string[]): Promise<string[]> => ids(await search('dress', 0, { notWords, limit: 48 })).filter((id) => id.endsWith('dress'));
      assert.deepEqual((await dresses('red', '青い', ' ', "%s '")).sort(), ['black-dress', 'green-dress', 'white-dress', 'yellow-dress']);
      assert.deepEqual(await dresses('dress'), []);
      const not = await search(undefined, 0, { notVectors: [direction(0, 0.3)], limit: 48 });
      const [wanted, far] = [not.findIndex(({ id }) => id === 'red-dress'), not.findIndex(({ id }) => id === 'black-dress')];
      assert.ok(wanted < far, ids(not).join());
    });

    test('only rows with the values of columns are found, all of them, and nothing in a value is SQL', async () => {
      const where = async (...conditions: string[]): Promise<string[]> => ids(await search('shoes', 2, { filters: filtersOf(conditions), limit: 48 })).sort();
      assert.equal((await where('kind=feet')).length, 12);
      assert.deepEqual(await where('kind=feet', 'price<=21'), ['blue-shoes', 'red-shoes']);
      assert.deepEqual(await where('name=red hat', 'name=blue bag'), ['blue-bag', 'red-hat']);
      assert.deepEqual(await where('price>=70', 'price!=72.00'), ['blue-scarf', 'red-scarf', 'white-scarf', 'yellow-scarf']);
      assert.deepEqual(await where('id=red-hat', 'location=red-hat.png'), ['red-hat']);
      assert.equal((await search('x', 0, { filters: { price: null } as never, limit: 48 })).length, 8);
      for (const value of ["'; DROP TABLE products; --", '%s %1$s %L', '{"a", b}', '$search$', '\\']) {
        assert.deepEqual([await where(`name=${value}`), await where(`name>=${value}`).then((found) => found.length <= 48)], [[], true], value);
      }
      await assert.rejects(where('colour=red'), (error: unknown) => error instanceof RefusedError && /no column colour/.test(error.message));
      await assert.rejects(where('price=cheap'), (error: unknown) => error instanceof RefusedError && /invalid input syntax for type numeric: "cheap"/.test(error.message));
      await assert.rejects(where('name"; --=1'), RefusedError);
      assert.equal((await postgres.query('SELECT FROM products')).length, 48);
    });

    test('with an index over the pieces of words, and the rarest of them known, the same is found', async () => {
      const queries = ['red dress', 'a shirt in blue', '赤い靴', '靴下', '黒いコート', 'AB-330', 'white AB-550 thing', 'drss', 'ドレス'];
      const all = (): Promise<Found[][]> => Promise.all(queries.map((words) => search(words, 4, { limit: 20 })));
      const before_ = await all();
      for (const column of TEXTS.columns) await makeIndex(database, gramsIndex('shop', 'products', column), () => undefined, SIGNAL);
      assert.deepEqual(await all(), before_);
      await postgres.query('ALTER ROLE postgres SET enable_seqscan = off');
      const own = new Database({ url: postgres.url, patienceMs: 5000 });
      const wish = { vector: direction(4), embeddingId: 'ours', limit: 20, filters: {}, notWords: [], notVectors: [] };
      assert.deepEqual(await Promise.all(queries.map((words) => find(own, 'shop', { ...wish, words }))), before_);
      await own.close();
      await postgres.query('ALTER ROLE postgres RESET enable_seqscan');
      for (let tries = 0; (await postgres.query("SELECT FROM pg_stat_user_indexes WHERE indexrelname = 'products_name_ja_grams' AND idx_scan > 0")).length === 0; tries++) {
        assert.ok(tries < 300, 'the index was not used');
        await delay(100);
      }
    });

    test('a vector of another model finds nothing, and after a change of models the other table is searched', async () => {
      await stocked('moving');
      await postgres.query('ALTER TABLE moving ADD COLUMN title text; UPDATE moving SET title = id');
      const [old, young] = [{ table: 'moving', model: 'old', embeddingId: 'ours', dimensions: DIMENSIONS, isCurrent: true }, { table: 'moving_young', model: 'young', embeddingId: 'b', dimensions: 3, isCurrent: false }];
      await publish(database, 'moving', old);
      await makeFunction(database, 'moving', 'moving', { ...NO_TEXTS, columns: ['title', 'id'] });
      await makeIndex(database, gramsIndex('moving', 'moving', 'title'), () => undefined, SIGNAL);
      assert.equal((await search('red hat', 0, {}, 'moving'))[0]?.texts.length, 2);
      assert.deepEqual(await search('red hat', 0, { embeddingId: 'b' }, 'moving'), []);
      await makeTwin(database, 'moving', old, young);
      await postgres.query("INSERT INTO moving_young (id, location, sha256, embedding_id, embedding, title) VALUES ('red-hat', 'x', '00', 'b', '[1,2,3]', 'red hat')");
      await makeCurrent(database, 'moving', young);
      const asked = { embeddingId: 'b', vector: Float32Array.of(1, 2, 3) };
      assert.deepEqual([await search('red hat', 0, {}, 'moving'), ids(await search('red hat', 0, asked, 'moving'))], [[], ['red-hat']]);
      await dropTwin(database, 'moving', old, young);
      assert.deepEqual(ids(await search('red hat', 0, asked, 'moving')), ['red-hat']);
      assert.deepEqual(await textsOf(database, 'moving'), { ...NO_TEXTS, columns: ['title', 'id'] });
    });

    test('columns that are not there or have no text are refused, and a function of another is left alone', async () => {
      const refused = (texts: object, message: RegExp): Promise<void> =>
        assert.rejects(makeFunction(database, 'shop', 'shop', { ...NO_TEXTS, ...texts }), (error: unknown) => error instanceof RefusedError && message.test(error.message));
      await refused({ columns: ['name'] }, /shop has no column name; it has id, location/);
      await refused({ columns: ['embedding'] }, /The column embedding of shop is no text/);
      await refused({ columns: ['name'], items: 'nothing' }, /no table or view nothing/);
      await refused({ columns: ['name'], items: 'products' }, /products has no column id/);
      assert.equal((await textsOf(database, 'shop'))?.items, 'products');
      await postgres.query("CREATE FUNCTION theirs_search() RETURNS int LANGUAGE sql AS 'SELECT 1'");
      await assert.rejects(textsOf(database, 'theirs'), /theirs_search is another's function/);
      assert.equal(await textsOf(database, 'nobodys'), undefined);
    });

    test('a view that has an id twice counts once, a role without rights is told so, and a query of any length is answered', async () => {
      await postgres.query("CREATE VIEW twice AS SELECT sku AS id, name FROM products UNION ALL SELECT sku, name || ' again' FROM products");
      await stocked('doubled');
      await makeFunction(database, 'doubled', 'doubled', { columns: ['name'], items: 'twice', itemsId: 'id' });
      const hits = await search('red dress', 0, { limit: 48 }, 'doubled');
      assert.equal(new Set(ids(hits)).size, hits.length);
      assert.deepEqual([hits[0]?.id, hits[0]?.score.toFixed(9), hits[0]?.texts.length], ['red-dress', (2 / 61).toFixed(9), 1]);
      assert.equal((await search('red dress '.repeat(100_000), 0, {}, 'doubled')).length, 3);
      await postgres.query('CREATE ROLE reader LOGIN; GRANT SELECT ON doubled, products TO reader; REVOKE CREATE ON SCHEMA public FROM PUBLIC');
      const outcome = await launch(['index', '--table', 'doubled'], postgres.folder, { DATABASE_URL: postgres.url.replace('//postgres@', '//reader@') }).outcome;
      assert.match(outcome.stderr, /doubled_search was not made: /);
      assert.equal(outcome.status, 2);
    });

    test('in a database of another encoding words are refused, and vectors searched', async () => {
      await postgres.query("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
      const latin = new Database({ url: postgres.url.replace(/postgres$/, 'latin'), patienceMs: 5000 });
      await new VectorTable(latin, 'a').create(2);
      await latin.query("INSERT INTO a VALUES ('x', 'x.png', '00', 'ours', '[1,0]')");
      await assert.rejects(makeFunction(latin, 'a', 'a', { ...NO_TEXTS, columns: ['id'] }), /databases of UTF8; this one is of LATIN1/);
      await makeFunction(latin, 'a', 'a', NO_TEXTS);
      const wish = { words: 'x', vector: Float32Array.of(1, 0), embeddingId: 'ours', limit: 2, filters: {}, notWords: ['y'], notVectors: [] };
      assert.deepEqual(ids(await find(latin, 'a', wish)), ['x']);
      await latin.close();
    });

    if (version === 'newest') {
      test('through an index of smaller vectors the full ones tell the order, and conditions leave out none', async () => {
        for (const kind of ['halfvec', 'bit'] as const) {
          const name = `small_${kind}`;
          await new VectorTable(database, name).create(DIMENSIONS);
          await postgres.query(`INSERT INTO ${name} SELECT 'p' || i, 'x', '00', 'ours', (SELECT array_agg(sin(i * k * 12.9) ORDER BY k) FROM generate_series(1, ${DIMENSIONS}) AS k)::vector FROM generate_series(1, 1200) AS i`);
          await makeFunction(database, name, name, NO_TEXTS);
          const exact = await search(undefined, 0, { limit: 10 }, name);
          await makeIndex(database, hnsw(name, DIMENSIONS, kind, settingsFor(0)), () => undefined, SIGNAL);
          await postgres.query(`ANALYZE ${name}`);
          const found = await search(undefined, 0, { limit: 10 }, name);
          assert.ok(ids(found).filter((id) => ids(exact).includes(id)).length >= 9, `${kind}: ${ids(found).join()} for ${ids(exact).join()}`);
          assert.deepEqual(found.map(({ similarity }) => similarity), found.map(({ similarity }) => similarity).sort((a, b) => b - a));
          assert.equal((await search(undefined, 0, { limit: 200, filters: { id: ['p1', 'p700', 'p1200'] } }, name)).length, 3);
          assert.equal((await search(undefined, 0, { limit: 1200 }, name)).length, 1200);
        }
      });
    }
  });
}

test('the drawings of the examples are found by their names and codes in two languages, and it is told why', async () => {
  const shop = await Workshop.open();
  try {
    assert.equal((await shop.run(path.join(REPOSITORY, 'examples'), '--create')).status, 0);
    const early = await shop.run('search', '--text', 'heart', '--not', 'red');
    assert.deepEqual([early.status, early.stderr], [2, '--not, --not-image and --where need image_embeddings_search, which the command index makes.\n']);
    await shop.postgres.query(readFileSync(path.join(REPOSITORY, 'clients/catalogue/examples/names.sql'), 'utf8'));
    const made = await shop.run('index', '--columns', 'code,name,name_ja', '--items', 'drawings', '--items-id', 'file');
    assert.deepEqual([made.status, /words in code, name, name_ja of drawings/.test(made.stderr)], [0, true], made.stderr);
    const first = async (...args: string[]): Promise<string> => {
      const { status, stdout, stderr } = await shop.run('search', ...args);
      assert.equal(status, 0, stderr);
      return stdout.split('\n')[0] ?? '';
    };
    const found = await Promise.all([
      first('--text', 'red heart'), first('--text', '赤いハート'), first('--text', 'se-1224'),
      first('--text', 'heart', '--not', 'red', '--not', '青い', '--not-image', path.join(REPOSITORY, 'examples/blue-heart.png')),
      first('--image', path.join(REPOSITORY, 'examples/star.png'), '--where', 'price<=150', '--json'),
    ]);
    assert.match(found[0] ?? '', /^  1  0\.\d{4}  red-heart\.png  \(image [-\d.]+( #\d+)?; name is "red heart" #1\)$/);
    assert.match(found[1] ?? '', /red-heart\.png .*name_ja is "赤いハート" #1/);
    assert.match(found[2] ?? '', /christmas-tree\.png .*code is "SE-1224" #1/);
    assert.match(found[3] ?? '', /green-heart\.png .*name 100 % in "green heart"/);
    const star = JSON.parse(found[4] ?? '') as Found;
    assert.deepEqual([star.id, star.vector_rank, star.exact, star.texts, star.similarity > 0.999], ['star.png', 1, false, [], true]);
    await shop.postgres.query("CREATE VIEW offers AS SELECT file AS id, name || E' \\u001b[31m' AS title FROM drawings");
    const view = await shop.run('index', '--columns', 'title', '--items', 'offers');
    assert.deepEqual([view.status, /words are looked for in every row/.test(view.stderr)], [0, true], view.stderr);
    assert.match(await first('--text', 'star'), /star\.png .*title 100 % in "star \\u001b\[31m" #1/);
  } finally {
    await shop.close();
  }
});
