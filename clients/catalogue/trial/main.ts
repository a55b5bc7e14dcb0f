/**
 * docs/catalogue.md from its first block to its last, as a reader meets it: in a fresh clone, each command as printed. Run by scripts/try-catalogue.
 *
 * What the page takes for granted is made here: the reader's photos, a table of products, clicks, folders of the two models. A command that the page
 * has and this file does not know, or the other way round, is a failure.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ClipClient } from 'clipsrv-client';
import sharp from 'sharp';
import { USAGE } from '../src/usage.ts';
import { Postgres } from '../test/support/postgres.ts';
import { image } from '../../typescript/test/support/images.ts';
import { PYTHON, REPOSITORY } from '../../typescript/test/support/server.ts';
import { optionsOn, printedOn } from './page.ts';
import { Shell, type Background } from './shell.ts';
import { blocksOfSql } from './sql.ts';

type Act = (command: string) => Promise<unknown>;

const PAGE = path.join(REPOSITORY, 'docs/catalogue.md');
const PHOTOS = 12;
/** Options on the page that are of other programs. */
const OTHERS: ReadonlySet<string> = new Set(['--option', '--models', '--model', '--profile', '--silent', '--prefix', '--strict']);

const drawings = process.argv[2];
for (const port of [5000, 5432, 3000]) assert.ok(await isFree(port), `port ${port} is taken: the page's commands need it`);
const folder = mkdtempSync(path.join(tmpdir(), 'clipsrv-trial-'));
const clone = path.join(folder, 'clipsrv');
execFileSync('git', ['clone', '--quiet', REPOSITORY, clone]);
const photos = path.join(clone, 'photos');
const shell = new Shell(clone, { ...process.env, XDG_CONFIG_HOME: path.join(folder, 'config') });
const postgres = await Postgres.start('newest', 5432);
let server: Background | undefined;
/** What the last commands have said, for the block of text that follows them. */
let outputs: string[] = [];

const says = (wanted: RegExp): Act => async (command) => {
  const output = await shell.run(command);
  assert.match(output, wanted, command);
  outputs.push(output);
};

async function serve(command: string): Promise<void> {
  await server?.end('SIGTERM');
  server = shell.launch(command);
  await server.until(() => isOk('http://127.0.0.1:5000/health'), 'healthy');
}

async function database(command: string): Promise<void> {
  leave(command, 'scripts/try-containers runs it; here PostgreSQL is one without Docker');
  await postgres.query("CREATE ROLE catalogue LOGIN SUPERUSER PASSWORD 'secret'");
  await postgres.query('CREATE DATABASE catalogue OWNER catalogue');
  await makePhotos();
}

/** Its catalogue is that of vit-b-32 from here on, and clicks are judged. */
async function twoModels(command: string): Promise<void> {
  const models = path.join(folder, 'models');
  mkdirSync(models);
  symlinkSync(path.join(clone, 'onnx_models/demo'), path.join(models, 'vit-b-32'));
  const program = 'import sys; from pathlib import Path; from tests.support.model import write_model; write_model(Path(sys.argv[1]))';
  execFileSync(PYTHON, ['-c', program, path.join(models, 'vit-l-14')], { cwd: REPOSITORY });
  shell.env['CLIPSRV_MODELS_DIR'] = models;
  await serve(command);
  await query('DROP TABLE image_embeddings CASCADE');
  await shell.run('npm run catalogue -- photos --create --index');
  writeFileSync(path.join(clone, 'clicks.csv'), 'query,id\na red dress,00001.png\na red dress,00002.png\n');
}

const shown = async (): Promise<string> => String((await query('SELECT model FROM image_embeddings_models WHERE is_current'))[0]?.['model']);
const stored = async (): Promise<number> => Number((await query('SELECT count(*) AS count FROM image_embeddings_current'))[0]?.['count']);

const shows = (wanted: RegExp, model: string): Act => async (command) => {
  await says(wanted)(command);
  assert.equal(await shown(), model);
};

async function interrupt(watch: Background): Promise<void> {
  await watch.end();
  assert.match(watch.said(), /^Interrupted: what was stored stays/m);
}

async function watchFolder(command: string): Promise<void> {
  const before = await stored();
  const watch = shell.launch(command);
  await watch.until(() => watch.said().includes('images are watched'), 'watched');
  writeFileSync(path.join(photos, 'new.png'), image(900));
  await watch.until(async () => (await stored()) === before + 1, 'a new file');
  await interrupt(watch);
}

async function watchProducts(command: string): Promise<void> {
  await query('CREATE TABLE products (sku text PRIMARY KEY, photo_url text, updated_at timestamptz DEFAULT now())');
  await query(`INSERT INTO products VALUES ('p1', '${path.join(photos, '00001.png')}')`);
  const before = await stored();
  const watch = shell.launch(command);
  await watch.until(() => watch.said().includes('images are watched'), 'watched');
  await query(`INSERT INTO products VALUES ('p2', '${path.join(photos, '00002.png')}')`);
  await watch.until(async () => (await stored()) === before + 2, 'a new row');
  await interrupt(watch);
}

async function next(command: string): Promise<void> {
  const site = 'http://localhost:3000';
  const dev = shell.launch(command);
  await dev.until(() => isOk(site), 'answers');
  const body = new FormData();
  body.append('image', new Blob([new Uint8Array(image(901))]), 'photo.png');
  const embedded = await fetch(`${site}/api/generate-embedding`, { method: 'POST', body });
  assert.equal(embedded.status, 200, await embedded.clone().text());
  const { id } = (await embedded.json()) as { id: string };
  for (const asked of ['text=a red dress', `like=${encodeURIComponent(id)}`]) {
    const { hits } = (await (await fetch(`${site}/api/search?${asked}`)).json()) as { hits: { src: string }[] };
    assert.ok(hits.length > 0, asked);
    assert.ok(await isOk(site + (hits[0]?.src ?? '')));
  }
  await dev.end();
}

/** As printed, with what a program around it has. */
async function typescript(block: string): Promise<void> {
  const file = path.join(clone, 'printed.mts');
  const around = block.includes('ClipClient') ? "import pg from 'pg';\nimport { ClipClient } from 'clipsrv-client';\nconst pool = new pg.Pool({ connectionString: process.env['DATABASE_URL'] });\n" : '';
  const after = block.includes('hits') ? '\nconsole.log(hits.rows.length);\nawait pool.end();\n' : '\nconsole.log(typeof generateEmbeddingLocal, typeof generateEmbeddingsBatch);\n';
  writeFileSync(file, `${around}${block}${after}`);
  assert.match(await shell.run(`npx tsx ${file}`), block.includes('hits') ? /^[1-9]\d*$/m : /^function function$/m);
}

/** By kind and by what it is, in the order of the page. Each is met once. */
const KNOWN: readonly (readonly [kind: string, of: RegExp, act: Act])[] = [
  ['sh', /^scripts\/serve$/, serve],
  ['sh', /^POSTGRES_PASSWORD=secret docker compose /, database],
  ['sh', /^npm install$/, says(/./)],
  ['sh', /^export DATABASE_URL=/, async (command) => shell.export(command)],
  ['sh', / photos --create --index --dry-run$/, says(/^14 in the catalogue: 14 would be embedded/m)],
  ['sh', /from-catalog\.ts photos --create --index$/, says(/^14 in the catalogue: 14 embedded with demo/m)],
  ['sh', /search --text "a red dress" --limit 5$/, says(/^ {2}5 {2}/m)],
  ['sh', /search --image photos\/00001\.png --json$/, says(/"id":"00001\.png"/)],
  ['text', /red-heart\.png\n.*heart-suit/, printsDrawings],
  ['inline', /^search --text "red heart"$/, async (command) => drawings === undefined && leave(command, 'needs the drawings')],
  ['inline', /^search --image red-apple\.png$/, async (command) => drawings === undefined && leave(command, 'needs the drawings')],
  ['inline', /^npx tsx scripts\/generate-embeddings-from-catalog\.ts \.\.\.$/, (command) => says(/^Embed a catalogue/m)(command.replace('...', '--help'))],
  ['inline', /^npm run catalogue -- \.\.\.$/, (command) => says(/^Embed a catalogue/m)(command.replace('...', '--help'))],
  ['inline', /^npm run$/, async () => undefined],
  ['sh', /^CATALOG_SOURCE=photos npm run tsx /, says(/14 already done, 0 failed/)],
  ['inline', /many-images\.ts$/, byItself],
  ['inline', /^index --columns$/, async () => undefined],
  ['sh', /embed examples --table examples --create$/, says(/^16 in the catalogue: 16 embedded/m)],
  ['sh', /^psql /, says(/^INSERT 0 16$/m)],
  ['sh', /index --table examples --columns /, async (command) => (await says(/words in code, name, name_ja of drawings/)(command), (outputs = []))],
  ['sh', /--text 赤いハート/, says(/red-heart\.png/)],
  ['sh', /--text fl-0039/, says(/flag-italy\.png/)],
  ['sh', /--text heart --not red /, says(/blue-heart\.png/)],
  ['text', /name_ja is/, prints],
  ['inline', /unwanted\.ts FOLDER$/, byItself],
  ['inline', /words\.ts FOLDER NAMES\.csv$/, byItself],
  ['sh', /index --measure$/, says(/halfvec +an index of/)],
  ['sh', /index --type halfvec --replace$/, says(/image_embeddings_embedding_hnsw_halfvec: /)],
  ['inline', /small-vectors\.ts FOLDER/, byItself],
  ['ts', /image_embeddings_current/, typescript],
  ['sh', /^scripts\/serve --model vit-b-32 --models vit-l-14$/, twoModels],
  ['sh', /migrate --to vit-l-14 .*clicks\.csv$/, shows(/vit-l-14: first hit right/, 'vit-b-32')],
  ['sh', /migrate --switch /, shows(/^image_embeddings_current shows vit-l-14/m, 'vit-l-14')],
  ['sh', /migrate --rollback /, shows(/^image_embeddings_current shows vit-b-32/m, 'vit-b-32')],
  ['sh', /migrate --switch /, shows(/^image_embeddings_current shows vit-l-14/m, 'vit-l-14')],
  ['sh', /migrate --drop vit-b-32$/, shows(/./, 'vit-l-14')],
  ['inline', /migrate-under-load\.ts$/, byItself],
  ['sh', /watch photos --create$/, watchFolder],
  ['sh', /watch --query .*--trigger products$/, watchProducts],
  ['sh', /duplicates --base photos$/, async (command) => ((outputs = []), await shell.run(command, [0, 1]).then((output) => outputs.push(output)))],
  ['sh', /duplicates --base photos --html duplicates\.html$/, async (command) => (await shell.run(command, [0, 1]), assert.ok(readFileSync(path.join(clone, 'duplicates.html')).length > 1000))],
  ['sh', /duplicates --base photos --json > duplicates\.jsonl$/, async (command) => (await shell.run(command, [0, 1]), assert.match(readFileSync(path.join(clone, 'duplicates.jsonl'), 'utf8'), /^\{.*copy-of/m))],
  ['text', /same bytes/, async () => assert.match(outputs.join(), /^\d images: \S+\n( {2}(same bytes|same pixels|0\.\d{4}) +\S+\n)+/m)],
  ['ts', /generateEmbeddingsBatch/, typescript],
  ['sh', /^npm --prefix clients\/nextjs install$/, says(/./)],
  ['sh', /^npm --prefix clients\/nextjs run dev$/, next],
  ['inline', /^npx next telemetry disable$/, (command) => shell.run(`cd clients/nextjs && ${command}`)],
  ['inline', /^scripts\/try-next$/, byItself],
];

const left: string[] = [];
function leave(command: string, reason: string): void {
  left.push(`${command}\n    ${reason}`);
}
async function byItself(command: string): Promise<void> {
  leave(command, 'takes long and is run by itself');
}

const figures = /\d\.\d{4}/g;
/** The outputs of the commands before are what the page prints: to the letter but for figures, and those within a thousandth. */
async function prints(block: string): Promise<void> {
  const printed = outputs.map((output) => output.split('\n').filter((line) => /^ {2}\d {2}/.test(line)).join('\n')).join('\n\n');
  assert.equal(printed.replaceAll(figures, '*'), block.replaceAll(figures, '*'));
  const [ours, theirs] = [printed, block].map((text) => Array.from(text.matchAll(figures), ([figure]) => Number(figure)));
  for (const [i, figure] of (theirs ?? []).entries()) assert.ok(Math.abs(figure - (ours?.[i] ?? NaN)) < 1e-3, printed);
}

async function printsDrawings(block: string): Promise<void> {
  if (drawings === undefined) return leave(block, 'needs the drawings: scripts/try-catalogue FOLDER');
  cpSync(drawings, path.join(clone, 'drawings'), { recursive: true });
  const catalogue = 'npm run catalogue --';
  await shell.run(`${catalogue} drawings --table drawn --create --index`);
  outputs = [await shell.run(`${catalogue} search --text "red heart" --table drawn --limit 3`)];
  await prints(block);
  const apple = await shell.run(`${catalogue} search --image drawings/red-apple.png --table drawn --limit 4`);
  assert.match(apple, /1\.0000 {2}red-apple\.png\n.*tomato\.png\n.*bell-pepper\.png\n.*peach\.png/);
}

async function makePhotos(): Promise<void> {
  mkdirSync(photos);
  for (let i = 0; i < PHOTOS; i++) writeFileSync(path.join(photos, `${String(i).padStart(5, '0')}.png`), image(i, 64, 48));
  copyFileSync(path.join(photos, '00003.png'), path.join(photos, 'copy-of-00003.png'));
  await sharp(path.join(photos, '00003.png')).extract({ left: 1, top: 0, width: 63, height: 48 }).toFile(path.join(photos, '00003-cropped.png'));
}

const query = (text: string): Promise<Record<string, unknown>[]> => postgres.query(text, [], 'catalogue');

async function isFree(port: number): Promise<boolean> {
  const socket = connect(port, 'localhost');
  const answers = await new Promise((resolve) => socket.once('connect', () => resolve(true)).once('error', () => resolve(false)));
  socket.destroy();
  return !answers;
}

const isOk = (url: string): Promise<boolean> => fetch(url).then((answer) => answer.ok, () => false);

try {
  const strange = [...optionsOn(PAGE)].filter((name) => !USAGE.includes(name) && !OTHERS.has(name));
  assert.deepEqual(strange, [], 'options that no command has');
  const sql = blocksOfSql(postgres, () => new ClipClient().embedText('red heart'));
  const met = new Set<unknown>();
  for (const { kind, text } of printedOn(PAGE)) {
    const step = [...KNOWN, ...sql].find((known) => known[0] === kind && known[1].test(text) && !met.has(known));
    assert.ok(step !== undefined, `nothing is known of this ${kind} of the page:\n${text}`);
    met.add(step);
    const begun = performance.now();
    await step[2](text);
    console.log(`ok ${((performance.now() - begun) / 1000).toFixed(1).padStart(6)} s  ${kind}: ${text.split('\n')[0]}`);
  }
  assert.deepEqual([...KNOWN, ...sql].filter((known) => !met.has(known)).map(([, of]) => of), [], 'not on the page any more');
  console.log(`\nnot run here, ${left.length}:\n${left.join('\n')}\n\n${met.size} blocks and commands of docs/catalogue.md, all as printed; ${readdirSync(photos).length} files in photos/ at the end`);
} finally {
  await server?.end('SIGTERM');
  shell.close();
  await postgres.remove();
  rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
}
