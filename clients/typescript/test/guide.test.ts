/** The self-hosting guide's own TypeScript, word for word, in each combination of FormData and fetch people have. */
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { ClipClient, toNumbers } from 'clipsrv-client';
import { image } from './support/images.ts';
import { ClipServer, REPOSITORY } from './support/server.ts';

const run = promisify(execFile);
const here = import.meta.dirname;
const workplace = path.join(here, '../dist/guide');
const snippet = (name: string): string => readFileSync(path.join(here, 'guide', `${name}.txt`), 'utf8');

const COMBINATIONS = {
  'clipsrv-client/form-data and the platform\'s fetch': "import { FormData } from 'clipsrv-client/form-data';",
  'the npm packages form-data and node-fetch 3': "import FormData from 'form-data';\nimport fetch from 'node-fetch';",
  'the npm packages form-data and node-fetch 2': "import FormData from 'form-data';\nimport fetch from 'node-fetch-2';",
  'the npm package form-data and the platform\'s fetch': "import FormData from 'form-data';",
  'the platform\'s FormData and fetch': '',
} as const;

type Combination = keyof typeof COMBINATIONS;

let server: ClipServer;
const images = Array.from({ length: 40 }, (_, i) => image(i));

before(async () => {
  // A program with node-fetch 3 ends only when the server has closed the connection that it keeps.
  server = await ClipServer.start('--keep-alive', '1');
  rmSync(workplace, { recursive: true, force: true });
});
after(() => server.stop());

/** The snippets as a program; the guide's port is the only thing that changes, as its own last section says to do. */
function program(combination: Combination, edit: (code: string) => string = (code) => code): string {
  const folder = path.join(workplace, String(Object.keys(COMBINATIONS).indexOf(combination)));
  mkdirSync(path.join(folder, 'lib'), { recursive: true });
  const imports = COMBINATIONS[combination];
  const port = new URL(server.url).port;
  const write = (name: string, code: string): void =>
    writeFileSync(path.join(folder, name), edit(code.replaceAll('localhost:5000', `localhost:${port}`)));
  write('lib/clipClient.ts', `${imports}\n${snippet('clipClient')}`);
  write(
    'main.ts',
    `${imports}
import { readFileSync } from 'node:fs';
import { generateEmbeddingLocal, generateEmbeddingsBatch } from './lib/clipClient.js';
const images: Buffer[] = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')).map((text: string) => Buffer.from(text, 'base64'));
const imageBuffer = images[0] as Buffer;
const single: number[][] = [];
const batched: number[][] = [];
async function saveToDatabase(embedding: number[]): Promise<void> { single.push(embedding); }
async function saveBatchToDatabase(embeddings: number[][]): Promise<void> { batched.push(...embeddings); }
${snippet('batches')}
${snippet('single')}
console.log(JSON.stringify({ embedding, single, batched }));
`,
  );
  writeFileSync(path.join(folder, 'images.json'), JSON.stringify(images.map((bytes) => bytes.toString('base64'))));
  return folder;
}

async function execute(folder: string): Promise<{ embedding: number[]; single: number[][]; batched: number[][] }> {
  const args = ['--import', 'tsx', path.join(folder, 'main.ts'), path.join(folder, 'images.json')];
  const { stdout } = await run(process.execPath, args, { cwd: REPOSITORY, maxBuffer: 1 << 26 });
  return JSON.parse(stdout) as { embedding: number[]; single: number[][]; batched: number[][] };
}

function compile(folder: string): string {
  const settings = { strict: true, noEmit: true, skipLibCheck: true, target: 'ES2022', module: 'NodeNext', lib: ['ES2022', 'DOM'], types: ['node'] };
  writeFileSync(path.join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions: settings, include: ['.'] }));
  try {
    execFileSync(path.join(REPOSITORY, 'node_modules/.bin/tsc'), ['-p', folder], { encoding: 'utf8' });
    return '';
  } catch (error) {
    return (error as { stdout: string }).stdout;
  }
}

const distance = (a: readonly number[], b: readonly number[]): number =>
  Math.max(...a.map((value, i) => Math.abs(value - (b[i] ?? Number.NaN))));

async function assertRightVectors(folder: string): Promise<void> {
  const { embedding, single, batched } = await execute(folder);
  const expected = (await new ClipClient({ baseUrl: server.url }).embedImages(images)).map(toNumbers);
  assert.equal(single.length, images.length);
  assert.equal(batched.length, images.length);
  for (const [i, vector] of expected.entries()) {
    assert.ok(distance(vector, single[i] ?? []) < 1e-5 && distance(vector, batched[i] ?? []) < 1e-5, `image ${i}`);
  }
  assert.ok(distance(expected[0] ?? [], embedding) < 1e-5);
}

for (const combination of Object.keys(COMBINATIONS).slice(0, 3) as Combination[]) {
  test(`the guide's snippets run unchanged with ${combination}`, () => assertRightVectors(program(combination)));
}

test('the guide\'s snippets compile unchanged under --strict with clipsrv-client/form-data', () => {
  assert.equal(compile(program('clipsrv-client/form-data and the platform\'s fetch')), '');
});

const PLATFORM = 'the platform\'s FormData and fetch';
const MIXED = 'the npm package form-data and the platform\'s fetch';

test('the platform\'s FormData refuses a Buffer, in the compiler and before anything is sent', async () => {
  const folder = program(PLATFORM);
  assert.match(compile(folder), /TS2740: Type 'Buffer/);
  await assert.rejects(execute(folder), /TypeError: Failed to execute 'append' on 'FormData'/);
});

test('form-data given to the platform\'s fetch is refused by the compiler and by the server', async () => {
  const folder = program(MIXED);
  assert.match(compile(folder), /TS2769: No overload matches this call/);
  await assert.rejects(execute(folder), /CLIP server error/);
  const response = await fetch(`${server.url}/embed`, { method: 'POST', body: '[object FormData]' });
  const { error } = (await response.json()) as { error: { message: string } };
  assert.equal(response.status, 415);
  assert.match(error.message, /form was sent as a string.*form-data/);
});

test('node-fetch 3 runs as it is, and its types ask for a cast of the answer', () => {
  const errors = compile(program('the npm packages form-data and node-fetch 3')).trim().split('\n');
  assert.ok(errors.every((line) => /TS2339: Property 'embeddings?' does not exist on type 'unknown'/.test(line)), errors.join('\n'));
});

test('the platform\'s FormData works with the one line changed that docs/catalogue.md names', () =>
  assertRightVectors(
    program(PLATFORM, (code) => code.replace(/append\('(images?)', (\w+), \{ filename: (.+?) \}\)/g, "append('$1', new Blob([$2]), $3)")),
  ));

test('form-data works with the platform\'s fetch with the one line changed that docs/catalogue.md names', () =>
  assertRightVectors(
    program(MIXED, (code) => code.replaceAll('body: formData,', 'body: formData.getBuffer(), headers: formData.getHeaders(),')),
  ));

test('the helpers of clipsrv-client give exactly the numbers of the guide\'s', async () => {
  const { embedding } = await execute(program('clipsrv-client/form-data and the platform\'s fetch'));
  const code = `import { generateEmbeddingLocal, generateEmbeddingsBatch } from 'clipsrv-client';
    const image = Buffer.from(process.argv[1] ?? '', 'base64');
    console.log(JSON.stringify([await generateEmbeddingLocal(image), await generateEmbeddingsBatch([image])]));`;
  const { stdout } = await run(process.execPath, ['--input-type=module', '-e', code, images[0]?.toString('base64') ?? ''], {
    cwd: path.join(here, '..'),
    env: { ...process.env, CLIP_SERVER_URL: server.url },
  });
  assert.deepEqual(JSON.parse(stdout), [embedding, [embedding]]);
});

test('the guide\'s sharp recipe runs unchanged, and its copy has another vector than the original', async (t) => {
  const folder = path.join(workplace, 'sharp');
  mkdirSync(folder, { recursive: true });
  const code = `import { generateEmbeddingLocal } from 'clipsrv-client';
import { readFileSync } from 'node:fs';
const imageBuffer = readFileSync(process.argv[2] ?? '');
${snippet('resize')}
console.log(JSON.stringify(embedding));`;
  writeFileSync(path.join(folder, 'main.ts'), code);
  const original = image(5, 640, 360);
  writeFileSync(path.join(folder, 'original.png'), original);
  const { stdout } = await run(process.execPath, ['--import', 'tsx', path.join(folder, 'main.ts'), path.join(folder, 'original.png')], {
    cwd: REPOSITORY,
    env: { ...process.env, CLIP_SERVER_URL: server.url },
  });
  const resized = JSON.parse(stdout) as number[];
  const vector = toNumbers(await new ClipClient({ baseUrl: server.url }).embedImage(original));
  const cosine = vector.reduce((sum, value, i) => sum + value * (resized[i] ?? 0), 0);
  t.diagnostic(`cosine of the resized copy with the original: ${cosine.toFixed(6)}`);
  assert.ok(distance(vector, resized) > 1e-4);
});
