import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Database } from '../src/database.ts';
import { openQuery, openSource, type Entry, type Source } from '../src/sources.ts';
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

function file(name: string, text: string): string {
  const full = path.join(folder, name);
  writeFileSync(full, text);
  return full;
}

test('a folder gives every image below it, in order, and nothing else', async () => {
  const root = path.join(folder, 'shop');
  mkdirSync(path.join(root, 'b/deep'), { recursive: true });
  mkdirSync(path.join(root, '.cache'));
  for (const name of ['c.JPG', 'b/deep/x.webp', 'b/a.jpeg', 'a.png', 'notes.txt', '.hidden.png', '.cache/y.png']) writeFileSync(path.join(root, name), '');
  const source = await openSource(root, columns, undefined);
  assert.deepEqual(
    (await entries(source)).map((entry) => 'item' in entry && entry.item),
    ['a.png', 'b/a.jpeg', 'b/deep/x.webp', 'c.JPG'].map((id) => ({ id, location: id })),
  );
  assert.equal(source.base, root);
});

test('a CSV gives its rows, whatever their quoting, and names those that are none', async () => {
  const name = file('c.csv', '\ufeffid,title,path\r\n1,"Shoe, ""red""",a.png\r\n2,x\r\n3,y,\r\n,z,b.png\r\n\r\n"4","two\nlines","sub/c d.png"\r\n');
  const found = await entries(await openSource(name, columns, undefined));
  assert.deepEqual(found.flatMap((entry) => ('item' in entry ? [entry.item] : [])), [
    { id: '1', location: 'a.png' },
    { id: '4', location: 'sub/c d.png' },
  ]);
  const problems = found.flatMap((entry) => ('problem' in entry ? [entry.problem] : []));
  assert.equal(problems.length, 3);
  assert.match(problems.join('; '), /Record Length.*no path or url or location or image for 3.*no id/s);
});

test('the columns of a CSV can be named', async () => {
  const name = file('sku.csv', 'sku,photo,url\nA-1,a.png,http://x/y\n');
  const [entry] = await entries(await openSource(name, { id: 'sku', location: 'photo' }, '/images'));
  assert.deepEqual(entry, { item: { id: 'A-1', location: 'a.png' } });
});

test('JSON lines give their objects, and name the lines that are none', async () => {
  const name = file('c.jsonl', '{"id": 7, "url": "https://x/7.jpg"}\n\nnot json\n[1]\n{"id": "8"}\n{"id": "9", "path": "9.png"}');
  assert.deepEqual(await entries(await openSource(name, columns, undefined)), [
    { item: { id: '7', location: 'https://x/7.jpg' } },
    { where: `${name}:3`, problem: 'not a JSON object' },
    { where: `${name}:4`, problem: 'no id' },
    { where: `${name}:5`, problem: 'no path or url or location or image for 8' },
    { item: { id: '9', location: '9.png' } },
  ]);
});

test('a source that is not there, or of no known kind, is refused', async () => {
  await assert.rejects(openSource(path.join(folder, 'nowhere'), columns, undefined), { name: 'RefusedError' });
  await assert.rejects(openSource(file('c.xml', ''), columns, undefined), { name: 'RefusedError', message: /neither/ });
});

test('a query gives every row once, page by page, also when the database is killed in between', async () => {
  await postgres.query(`CREATE TABLE products AS SELECT i AS product, 'img/' || i || '.png' AS photo, now() AS made FROM generate_series(1, 3500) AS i`);
  await postgres.query(`INSERT INTO products VALUES (NULL, 'x.png'), (9999, NULL)`);
  const database = new Database({ url: postgres.url, patienceMs: 20_000 });
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
