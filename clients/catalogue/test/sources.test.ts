import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Database } from '../src/database.ts';
import { openQuery, openSource } from '../src/sources/open.ts';
import type { Entry, Source } from '../src/sources/source.ts';
import { PYTHON } from '../../typescript/test/support/server.ts';
import { Postgres } from './support/postgres.ts';

let folder: string;
let postgres: Postgres;

before(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'clipsrv-sources-'));
  postgres = await Postgres.start();
});
after(async () => {
  rmSync(folder, { recursive: true });
  await postgres.remove();
});

const columns = { id: 'id', location: undefined };

async function entries(source: Source): Promise<Entry[]> {
  const all: Entry[] = [];
  for await (const entry of source.entries()) all.push(entry);
  return all;
}

function file(name: string, text: string | Uint8Array): string {
  const full = path.join(folder, name);
  writeFileSync(full, text);
  return full;
}

test('a folder gives every image below it, in order, and nothing else', async () => {
  const root = path.join(folder, 'shop');
  mkdirSync(path.join(root, 'b/deep'), { recursive: true });
  mkdirSync(path.join(root, '.cache'));
  const names = ['c.JPG', 'b/deep/x.webp', 'b/a.jpeg', 'a.png', 'notes.txt', '.hidden.png', '.cache/y.png', 'd.jfif', 'e.jpe', 'f.DIB', 'g.mpo', 'h.hif'];
  for (const name of names) writeFileSync(path.join(root, name), '');
  symlinkSync(root, path.join(root, 'loop'));
  symlinkSync(root, path.join(root, 'loop.jpg'));
  const source = await openSource(root, { columns });
  assert.deepEqual(
    (await entries(source)).map((entry) => 'item' in entry && entry.item),
    ['a.png', 'b/a.jpeg', 'b/deep/x.webp', 'c.JPG', 'd.jfif', 'e.jpe', 'f.DIB', 'g.mpo', 'h.hif'].map((id) => ({ id, location: id })),
  );
  assert.equal(source.base, root);
});

test('names that are not UTF-8 are told apart and named, and their neighbours are taken', async () => {
  const root = path.join(folder, 'latin');
  mkdirSync(root);
  writeFileSync(path.join(root, 'ok.jpg'), '');
  for (const [i, byte] of [0xe9, 0xe8].entries()) {
    const name = Buffer.concat([Buffer.from(`${root}/caf`), Buffer.from([byte]), Buffer.from('.jpg')]);
    writeFileSync(path.join(root, String(i)), '');
    renameSync(path.join(root, String(i)), name);
  }
  const found = await entries(await openSource(root, { columns }));
  assert.deepEqual(found.map((entry) => 'item' in entry ? entry.item.id : entry.problem).sort(), [
    'its name is not UTF-8: rename it', 'its name is not UTF-8: rename it', 'ok.jpg',
  ]);
});

test('a CSV gives its rows, whatever their quoting, and names those that are none', async () => {
  const name = file('c.csv', '\ufeffid,title,path\r\n1,"Shoe, ""red""",a.png\r\n2,x\r\n3,y,\r\n,z,b.png\r\n\r\n"4","two\nlines","sub/c d.png"\r\n');
  const found = await entries(await openSource(name, { columns }));
  assert.deepEqual(found.flatMap((entry) => ('item' in entry ? [entry.item] : [])), [
    { id: '1', location: 'a.png' },
    { id: '4', location: 'sub/c d.png' },
  ]);
  const problems = found.flatMap((entry) => ('problem' in entry ? [entry.problem] : []));
  assert.equal(problems.length, 3);
  assert.match(problems.join('; '), /Record Length.*no path or url or location or image for 3; its keys are: id, title, path.*no id/s);
});

test('the columns of a CSV can be named', async () => {
  const name = file('sku.csv', 'sku,photo,url\nA-1,a.png,http://x/y\n');
  const [entry] = await entries(await openSource(name, { columns: { id: 'sku', location: 'photo' }, base: '/images' }));
  assert.deepEqual(entry, { item: { id: 'A-1', location: 'a.png' } });
});

test('JSON lines give their objects, and name the lines that are none', async () => {
  const name = file('c.jsonl', '{"id": 7, "url": "https://x/7.jpg"}\n\nnot json\n[1]\n{"id": "8"}\n{"id": "9", "path": "9.png"}');
  assert.deepEqual(await entries(await openSource(name, { columns })), [
    { item: { id: '7', location: 'https://x/7.jpg' } },
    { where: `${name}:3`, problem: 'not a JSON object' },
    { where: `${name}:4`, problem: 'not a JSON object' },
    { where: `${name}:5`, problem: 'no path or url or location or image for 8; its keys are: id' },
    { item: { id: '9', location: '9.png' } },
  ]);
});

test('an id is a text or a whole number that JavaScript tells apart, and nothing else', async () => {
  const values = ['7', '"07"', '42.0', '1.5', '12345678901234567890', 'true', 'null', '""', '[]', '{}'];
  const name = file('ids.jsonl', values.map((value) => `{"id": ${value}, "path": "a.png"}`).join('\n'));
  const found = await entries(await openSource(name, { columns }));
  assert.deepEqual(found.flatMap((entry) => ('item' in entry ? [entry.item.id] : [])), ['7', '07', '42']);
  const problems = found.flatMap((entry) => ('problem' in entry ? [entry.problem] : []));
  assert.equal(problems.filter((problem) => /put it in quotes/.test(problem)).length, 5);
  assert.equal(problems.filter((problem) => /^no id; its keys are: id, path$/.test(problem)).length, 2);
});

/** Bytes in encodings that Node itself does not write. */
const encode = (text: string, encoding: string): Buffer =>
  execFileSync(PYTHON, ['-c', 'import sys; sys.stdout.buffer.write(sys.stdin.buffer.read().decode().encode(sys.argv[1]))', encoding], { input: text });

const ROWS = '{"id": "赤い靴", "path": "表.png"}\n{"id": "2", "path": "b.png"}\n';
const JAPANESE = [{ item: { id: '赤い靴', location: '表.png' } }, { item: { id: '2', location: 'b.png' } }];

test('a byte order mark tells the encoding of a file', async () => {
  for (const [mark, encoding] of [['', 'utf-8'], ['\ufeff', 'utf-8'], ['\ufeff', 'utf-16-le'], ['\ufeff', 'utf-16-be']] as const) {
    const json = file('marked.jsonl', encode(mark + ROWS, encoding));
    assert.deepEqual(await entries(await openSource(json, { columns })), JAPANESE, encoding);
    const csv = file('marked.csv', encode(`${mark}id,path\r\n赤い靴,表.png\r\n2,b.png\r\n`, encoding));
    assert.deepEqual(await entries(await openSource(csv, { columns })), JAPANESE, encoding);
  }
  const joined = file('joined.jsonl', `\ufeff${ROWS}\ufeff{"id": "3", "path": "c.png"}`);
  assert.equal((await entries(await openSource(joined, { columns }))).filter((entry) => 'item' in entry).length, 3);
});

test('a file in another encoding is read as --encoding says, and refused by name without it', async () => {
  for (const [encoding, label] of [['cp932', 'cp932'], ['cp932', 'Shift_JIS'], ['euc-jp', 'euc-jp'], ['utf-16-le', 'utf-16le']] as const) {
    const json = file('other.jsonl', encode(ROWS, encoding));
    assert.deepEqual(await entries(await openSource(json, { columns, encoding: label })), JAPANESE, label);
    const csv = file('other.csv', encode('id,path\n赤い靴,表.png\n2,b.png\n', encoding));
    assert.deepEqual(await entries(await openSource(csv, { columns, encoding: label })), JAPANESE, label);
    await assert.rejects(entries(await openSource(json, { columns })), { name: 'RefusedError', message: /--encoding/ });
    await assert.rejects(entries(await openSource(csv, { columns })), { name: 'RefusedError', message: /--encoding/ });
  }
  const western = file('western.csv', encode('id,path\ncafé,a.png\n', 'cp1252'));
  assert.deepEqual(await entries(await openSource(western, { columns, encoding: 'windows-1252' })), [{ item: { id: 'café', location: 'a.png' } }]);
  const late = file('late.csv', Buffer.concat([Buffer.from(`id,path\n${'1,a.png\n'.repeat(20_000)}`), Buffer.from([0xe9, 0x0a])]));
  await assert.rejects(entries(await openSource(late, { columns })), /late\.csv is not in utf-8/);
});

test('a CSV may separate its columns by semicolons or tabs, as its first record or Excel\'s own line says', async () => {
  const expected = [{ item: { id: 'a,b', location: 'x y.png' } }, { item: { id: '2', location: 'b.png' } }];
  for (const [i, separator] of [';', '\t'].entries()) {
    const rows = ['title;id;path', 'Shoe;"a,b";x y.png', ';2;b.png', ''].join('\r\n').replaceAll(';', separator);
    assert.deepEqual(await entries(await openSource(file(`separated${i}.csv`, rows), { columns })), expected);
    assert.deepEqual(await entries(await openSource(file(`separated${i}.tsv`, rows), { columns })), expected);
    assert.deepEqual(await entries(await openSource(file('excel.csv', `sep=${separator}\r\n${rows}`), { columns })), expected);
  }
  const plain = file('plain.csv', 'id,path\n"a;b",x;y.png\n');
  assert.deepEqual(await entries(await openSource(plain, { columns })), [{ item: { id: 'a;b', location: 'x;y.png' } }]);
});

test('a column that is not there is said once, with those that are', async () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ['sku,photo\n1,a.png\n2,b.png\n', /no column id \(--id-column\); its columns are: sku, photo\./],
    ['SKU;Name;Photo\n1;x;a.png\n', /its columns are: SKU, Name, Photo\./],
    ['id,photo\n1,a.png\n', /no column path, url, location, image \(--location-column\); its columns are: id, photo\./],
    ['a "quoted" mess\n', /no column id/],
  ];
  for (const [text, message] of cases) {
    await assert.rejects(entries(await openSource(file('columns.csv', text), { columns })), { name: 'RefusedError', message });
  }
  assert.deepEqual(await entries(await openSource(file('empty.csv', ''), { columns })), []);
  assert.deepEqual(await entries(await openSource(file('header.csv', 'id,path\n'), { columns })), []);
});

test('a source that is not there, of no known kind, or without an end is refused', async () => {
  await assert.rejects(openSource(path.join(folder, 'nowhere'), { columns }), { name: 'RefusedError' });
  await assert.rejects(openSource(file('c.xml', ''), { columns }), { name: 'RefusedError', message: /neither/ });
  execFileSync('mkfifo', [path.join(folder, 'pipe.csv')]);
  symlinkSync('/dev/zero', path.join(folder, 'endless.jsonl'));
  for (const name of ['pipe.csv', 'endless.jsonl']) {
    await assert.rejects(openSource(path.join(folder, name), { columns }), { name: 'RefusedError', message: /no regular file/ });
  }
  const quote = file('quote.csv', `id,path\n1,a.png\n2,"b.png\n${'3,c.png\n'.repeat(2_200_000)}`);
  await assert.rejects(entries(await openSource(quote, { columns })), { name: 'RefusedError', message: /is a quote not closed/ });
  const line = file('line.jsonl', 'x'.repeat(17 * 1024 * 1024));
  await assert.rejects(entries(await openSource(line, { columns })), { name: 'RefusedError', message: /a line of more than/ });
});

test('a query gives every row once, page by page, also when the database is killed in between', async () => {
  await postgres.query(`CREATE TABLE products AS SELECT i AS product, 'img/' || i || '.png' AS photo, now() AS made FROM generate_series(1, 3500) AS i`);
  await postgres.query(`INSERT INTO products VALUES (NULL, 'x.png'), (9999, NULL)`);
  const database = new Database({ url: postgres.url, patienceMs: 120_000 });
  const source = openQuery(database, 'SELECT product, photo, made FROM products;', undefined);
  const found: Entry[] = [];
  let back: Promise<void> | undefined;
  for await (const entry of source.entries()) {
    found.push(entry);
    if (found.length === 1500) {
      await postgres.kill();
      back = delay(300).then(() => postgres.up());
    }
  }
  await back;
  await database.close();
  const ids = found.flatMap((entry) => ('item' in entry ? [Number(entry.item.id)] : []));
  assert.deepEqual(ids.sort((a, b) => a - b), Array.from({ length: 3500 }, (_, i) => i + 1));
  assert.deepEqual(found.flatMap((entry) => ('problem' in entry ? [entry.problem] : [])), ['1 rows have no id', 'no path or URL']);
});

test('a query gives rows with one id in the order of their locations, the same row once, also across its pages', async () => {
  await postgres.query(`CREATE TABLE photos AS SELECT 'p' || lpad((i / 3)::text, 5, '0') AS id, 'img/' || (i % 2) || '.png' AS photo FROM generate_series(0, 4499) AS i`);
  const database = new Database({ url: postgres.url, patienceMs: 1000 });
  const found = await entries(openQuery(database, 'SELECT id, photo FROM photos', undefined));
  await database.close();
  const expected = Array.from({ length: 1500 }, (_, i) => [0, 1].map((photo) => `p${String(i).padStart(5, '0')} img/${photo}.png`)).flat();
  assert.deepEqual(found.map((entry) => ('item' in entry ? `${entry.item.id} ${entry.item.location}` : entry.problem)), expected);
});
