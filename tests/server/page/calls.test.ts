/** The calls that the page shows do what it did: copied as a person does, and run. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { image } from '../../../clients/typescript/test/support/images.ts';
import { PYTHON, REPOSITORY } from '../../../clients/typescript/test/support/server.ts';
import { Visit } from './browser.ts';
import { client, KEY, server, strict } from './world.ts';

const run = promisify(execFile);
/** Names that a shell, curl, Python and JavaScript each could take for something else. */
const NAMES = [`it's "a"; $(b), \\c.png`, '赤い花.png', '-x.png'];

type Call = 'curl' | 'python' | 'typescript';

/** Copies the call in one language out of the page. */
async function copied(visit: Visit, call: Call): Promise<string> {
  await visit.page.click(`#tab-${call}`);
  await visit.page.click('#copy');
  await visit.says('#copy', 'Copied');
  return visit.page.evaluate(() => navigator.clipboard.readText());
}

/** Runs a call in a folder that has the images; what it printed, without what curl shows around it. */
async function ran(text: string, call: Call, folder: string, field: string): Promise<unknown> {
  const options = { cwd: folder, env: { ...process.env, API_KEY: KEY } };
  if (call === 'curl') {
    const { stdout } = await run('bash', ['-euc', text.replace('curl', 'curl --silent --show-error --fail')], options);
    return (JSON.parse(stdout) as Record<string, unknown>)[field];
  }
  if (call === 'python') return JSON.parse((await run(PYTHON, ['-c', `${text.replace('print(', 'import json; print(json.dumps(')})`], options)).stdout);
  const program = path.join(folder, `${randomUUID()}.mts`);
  await writeFile(program, text.replace(/console\.log\((.*)\);$/, 'console.log(JSON.stringify($1));'));
  return JSON.parse((await run('node', ['--import', 'tsx', program], options)).stdout);
}

/** What the call of what was just done prints in each language: copied now, run later with the others. */
async function inEachLanguage(visit: Visit, folder: string, field: string): Promise<() => Promise<unknown[]>> {
  const texts: [Call, string][] = [];
  for (const call of ['curl', 'python', 'typescript'] as const) texts.push([call, await copied(visit, call)]);
  return async () => Promise.all(texts.map(([call, text]) => ran(text, call, folder, field)));
}

test('the calls of images, words, one image and labels give what the server gives', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'clipsrv-calls-'));
  await symlink(path.join(REPOSITORY, 'node_modules'), path.join(folder, 'node_modules'));
  const images = NAMES.map((name, seed) => ({ name, buffer: image(seed, 50, 50) }));
  for (const { name, buffer } of images) await writeFile(path.join(folder, name), buffer);
  const visit = await Visit.begin((await server()).url, { permissions: ['clipboard-read', 'clipboard-write'] });
  await visit.choose(images);
  await visit.embedded(3);
  await visit.page.click('#call summary');
  const vectors = (await (await client()).embedImages(images.map(({ buffer }) => buffer))).map((vector) => [...vector]);
  const rounded = (value: unknown): unknown => JSON.parse(JSON.stringify(value), (_, one) => (typeof one === 'number' ? Math.fround(one) : one));
  const several = await inEachLanguage(visit, folder, 'embeddings');

  const said = `it's "5 €" \\ $HOME, @x`;
  await visit.page.fill('#search', said);
  await visit.ranking(said);
  const words = [...(await (await client()).embedText(said))];
  const text = await inEachLanguage(visit, folder, 'embedding');

  await visit.page.locator('#grid button', { hasText: NAMES[0] ?? '' }).click();
  await visit.ranking(NAMES[0] ?? '');
  const one = await inEachLanguage(visit, folder, 'embedding');

  await visit.page.fill('#labels', `@file, it's "a", <b>`);
  await visit.page.keyboard.press('Enter');
  await visit.page.locator('#scores li').first().waitFor();
  const { labels } = await (await client()).classify(image(0, 50, 50), ['@file', `it's "a"`, '<b>']);
  const scored = await inEachLanguage(visit, folder, 'labels');

  for (const printed of await several()) assert.deepEqual(rounded(printed), vectors);
  for (const printed of await text()) assert.deepEqual(rounded(printed), words);
  for (const printed of await one()) assert.deepEqual(rounded(printed), vectors[0]);
  for (const printed of await scored()) assert.deepEqual(printed, labels);
  await visit.end();
  await rm(folder, { recursive: true });
});

test('where a key is wanted and another model is chosen, the calls say so', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'clipsrv-calls-'));
  await symlink(path.join(REPOSITORY, 'node_modules'), path.join(folder, 'node_modules'));
  const visit = await Visit.begin((await strict()).url, { permissions: ['clipboard-read', 'clipboard-write'] });
  await visit.page.fill('#key', KEY);
  await visit.page.keyboard.press('Enter');
  await visit.says('#facts', 'tiny');
  await visit.page.fill('#search', 'a dog');
  await visit.page.click('#call summary');
  const printed = await (await inEachLanguage(visit, folder, 'embedding'))();
  assert.deepEqual(printed.map((vector) => (vector as number[]).length), [64, 64, 64]);
  await visit.end();

  const other = await Visit.begin((await server()).url);
  await other.says('#facts', 'tiny');
  await other.page.selectOption('#models', 'other');
  await other.says('#facts', 'other');
  await other.page.fill('#search', 'a dog');
  await other.page.click('#call summary');
  await other.says('#code', '"model":"other"');
  await other.end();
  await rm(folder, { recursive: true });
});
