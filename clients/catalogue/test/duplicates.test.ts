/** Images that are in a catalogue twice: of the same bytes, of the same pixels, or nearly; and the contact sheet of them. */
import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import sharp from 'sharp';
import { Database } from '../src/database.ts';
import { groupsOf } from '../src/duplicates/groups.ts';
import { Gallery } from '../src/duplicates/neighbours.ts';
import { VectorTable } from '../src/tables/table.ts';
import { image } from '../../typescript/test/support/images.ts';
import { Workshop } from './support/workshop.ts';

let shop: Workshop;
before(async () => void (shop = await Workshop.open()));
after(() => shop.close());

interface Told {
  readonly images: readonly { readonly id: string; readonly same?: string; readonly as?: string; readonly distance: number }[];
}

const toldIn = (stdout: string): Told[] => stdout.trim().split('\n').filter(Boolean).map((line) => JSON.parse(line) as Told);
/** Who stands with whom and as what, without distances. */
const brief = ({ images }: Told): string[] => images.map(({ id, same, as }) => (same === undefined ? id : `${id} ${same} ${as}`));

test('a group is around one image: a chain of likenesses does not join what is unlike, and nothing of a pair is left out', () => {
  const pair = (one: number, other: number, distance: number) => ({ one, other, distance });
  const places = (pairs: ReturnType<typeof pair>[]) => groupsOf(pairs).map((group) => group.map(({ place }) => place));
  assert.deepEqual(places([pair(3, 7, 0.1), pair(0, 3, 0.2), pair(0, 7, 0.3)]), [[3, 7, 0]]);
  // 1 and 2 are near, 2 and 3 too, and 1 and 3 are not.
  assert.deepEqual(places([pair(1, 2, 0.1), pair(2, 3, 0.2)]), [[1, 2], [2, 3]]);
  // The last bits of a distance do not decide who leads.
  assert.deepEqual(places([pair(4, 5, -1e-9), pair(0, 4, 1e-9), pair(0, 5, 2e-9)]), [[0, 4, 5]]);
  assert.deepEqual(places([]), []);
});

test('copies of the same bytes, of the same pixels and smaller ones are found and named for what they are, with a sheet that runs nothing', async () => {
  const folder = shop.images('twice', 60, 0, 320, 240);
  const original = path.join(folder, '00007.png');
  copyFileSync(original, path.join(folder, 'copy.png'));
  writeFileSync(path.join(folder, 'pixels.webp'), await sharp(original).webp({ lossless: true }).toBuffer());
  const hostile = `<img src=x onerror=alert(1)>&'" style=x.jpg`;
  writeFileSync(path.join(folder, hostile), await sharp(original).jpeg({ quality: 92 }).toBuffer());
  copyFileSync(path.join(folder, '00020.png'), path.join(folder, 'also.png'));
  assert.equal((await shop.run(folder, '--table', 'twice', '--create', '--index')).status, 0);
  const { status, stdout, stderr } = await shop.run('duplicates', '--table', 'twice', '--base', folder, '--json', '--html', 'sheet.html');
  assert.equal(status, 0, stderr);
  const told = toldIn(stdout);
  const seven = told.find(({ images }) => images.some(({ id }) => id === '00007.png'));
  assert.deepEqual(brief(seven ?? { images: [] }).toSorted(), ['00007.png', `${hostile} near 00007.png`, 'copy.png bytes 00007.png', 'pixels.webp pixels 00007.png'].toSorted());
  assert.ok(told.some((group) => brief(group).join() === '00020.png,also.png bytes 00020.png'));
  assert.match(stderr, /near: at most \d\.\d{4} apart \(cosine distance\)\nnine of ten copies are within \d\.\d{4} of their originals: 62 of these images/);
  assert.match(stderr, /nearest neighbours of 62 images: 1 % within 0\.0000, /);
  const sheet = readFileSync(path.join(shop.folder, 'sheet.html'), 'utf8');
  assert.equal(existsSync(path.join(shop.folder, 'sheet.html.part')), false);
  assert.match(sheet, /Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'"/);
  assert.ok(sheet.includes('&lt;img src=x onerror=alert(1)&gt;&amp;&#39;&quot; style=x.jpg'));
  assert.equal(sheet.includes('<img src=x'), false);
  assert.doesNotMatch(sheet, /<script|javascript:/);
  const images = [...sheet.matchAll(/<img loading="lazy" alt="" src="data:image\/webp;base64,([^"]+)">/g)];
  assert.equal(images.length, told.flatMap((group) => group.images).length);
  assert.deepEqual(await sharp(Buffer.from(images[0]?.[1] ?? '', 'base64')).metadata().then(({ width, height }) => [width, height]), [160, 120]);
  const lines = await shop.run('duplicates', '--table', 'twice', '--base', folder, '--threshold', '0');
  assert.match(lines.stdout, /^2 images: 00020\.png\n {2}same bytes {3}also\.png$/m);
  assert.match(lines.stdout, /^\d groups of \d images: 2 of the same bytes, 1 of the same pixels, 0 near\nnear: at most 0 apart, as --threshold says$/m);
});

test('an image that is gone or another is listed, and where hardly one can be read the cure is named', async () => {
  const folder = shop.images('gone', 12, 500);
  mkdirSync(path.join(folder, 'more'));
  for (const i of [1, 2]) copyFileSync(path.join(folder, `0000${i}.png`), path.join(folder, `more/${i}.png`));
  writeFileSync(path.join(folder, 'near.jpg'), await sharp(path.join(folder, '00002.png')).jpeg({ quality: 100, chromaSubsampling: '4:4:4' }).toBuffer());
  assert.equal((await shop.run(folder, '--table', 'gone', '--create')).status, 0);
  unlinkSync(path.join(folder, 'near.jpg'));
  writeFileSync(path.join(folder, '00002.png'), image(900));
  const some = await shop.run('duplicates', '--table', 'gone', '--base', folder, '--threshold', '0.05', '--html', 'some.html');
  assert.equal(some.status, 1, some.stderr);
  assert.match(some.stderr, /failed: 00002\.png: image_changed/);
  assert.match(some.stderr, /failed: near\.jpg: file_missing/);
  assert.match(some.stdout, /same bytes {3}more\/1\.png/);
  assert.match(some.stdout, /same bytes {3}more\/2\.png/);
  const elsewhere = await shop.run('duplicates', '--table', 'gone', '--base', '/nowhere');
  assert.equal(elsewhere.status, 2);
  assert.match(elsewhere.stderr, /Of 13 images of the sample 0 could be read: .*--base.*--threshold/);
  const full = await shop.run('duplicates', '--table', 'gone', '--base', folder, '--threshold', '0', '--html', '/nowhere/sheet.html');
  assert.deepEqual([full.status, full.stderr.startsWith('--html /nowhere/sheet.html cannot be written')], [2, true]);
  const absent = await shop.run('duplicates', '--table', 'absent');
  assert.match(absent.stderr, /There is no table absent/);
});

test('in a crowd around an index every near one is found: copies of one placeholder, and more equal ones than an index gives', async () => {
  const database = new Database({ url: shop.postgres.url, patienceMs: 5000 });
  const table = new VectorTable(database, 'crowd');
  await table.create(8);
  const vector = (i: string): string => `(SELECT array_agg(sin(${i} * k * 12.9898 + k) ORDER BY k) FROM generate_series(1, 8) AS k)::vector`;
  const digest = (text: string): string => `encode(sha256((${text})::bytea), 'hex')`;
  // 150 rows of one content, 40 contents of one vector, 100 of their own, and one row whose sha256 is none.
  await shop.postgres.query(`
    INSERT INTO crowd SELECT 'a' || i, 'x', ${digest("'none yet'")}, 'm', ${vector('1')} FROM generate_series(1, 150) AS i;
    INSERT INTO crowd SELECT 'b' || i, 'x', ${digest("'b' || i")}, 'm', ${vector('2')} FROM generate_series(1, 40) AS i;
    INSERT INTO crowd SELECT 'c' || i, 'x', ${digest("'c' || i")}, 'm', ${vector('i + 2')} FROM generate_series(1, 100) AS i;
    INSERT INTO crowd VALUES ('d1', 'x', '', 'm', ${vector('1')}), ('d2', 'x', '', 'm', ${vector('1')}), ('e', 'x', 'z', 'other', ${vector('1')})`);
  await shop.postgres.query('CREATE INDEX crowd_embedding_hnsw ON crowd USING hnsw (embedding vector_cosine_ops)');
  const gallery = new Gallery(database, 'crowd', 'm');
  const contents = await gallery.contents();
  assert.deepEqual([contents.length, contents[0]], [143, { key: contents[0]?.key, id: 'a1', rows: 150 }]);
  let done = 0;
  const { nearest, pairs, tenth } = await gallery.near(contents, 1e-6, (count) => (done += count), new AbortController().signal);
  const named = groupsOf(pairs).map((group) => group.map(({ place }) => contents[place]?.id ?? ''));
  assert.deepEqual(named.map(([first, ...others]) => [first, others.length]), [['a1', 2], ['b1', 39]]);
  assert.deepEqual(named[0], ['a1', 'd1', 'd2']);
  assert.deepEqual([done, nearest.length, tenth.length], [143, 143, 143]);
  assert.ok(nearest.every((distance, i) => i === 0 || distance >= (nearest[i - 1] ?? 0)));
  assert.deepEqual((await gallery.members([contents[0]?.key ?? ''])).length, 150);
  await database.close();
});
