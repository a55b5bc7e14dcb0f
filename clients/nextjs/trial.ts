/**
 * The application as a newcomer meets it: `next dev`, the demo model, a PostgreSQL, and Chromium, which uploads, searches and clicks.
 * Run by scripts/try-next, which says in its environment where Python and Chromium are.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { chromium } from 'playwright-core';
import { Workshop } from '../catalogue/test/support/workshop.ts';
import { freePort, REPOSITORY } from '../typescript/test/support/server.ts';

const PATIENCE = 120_000;
const UPLOADED = 'red-heart.png';

const shop = await Workshop.open();
const photos = path.join(shop.folder, 'photos');
mkdirSync(photos);
const drawings = path.join(REPOSITORY, 'examples');
for (const name of readdirSync(drawings)) if (name !== UPLOADED) copyFileSync(path.join(drawings, name), path.join(photos, name));
const made = await shop.run(photos, '--create', '--index');
assert.equal(made.status, 0, made.stderr);

const port = await freePort();
const env = { ...process.env, DATABASE_URL: shop.postgres.url, CLIP_SERVER_URL: shop.server.url, PHOTOS: photos, NEXT_TELEMETRY_DISABLED: '1' };
const next = spawn('npm', ['run', 'dev', '--', '--port', String(port)], { cwd: import.meta.dirname, env, detached: true, stdio: ['ignore', 'inherit', 'inherit'] });
const browser = await chromium.launch({ executablePath: process.env['CLIPSRV_TEST_CHROMIUM'] ?? 'chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
try {
  const url = `http://localhost:${port}`;
  for (let tries = 0; !(await fetch(url).then((response) => response.ok, () => false)); tries++) {
    assert.ok(tries < 240 && next.exitCode === null, 'next dev does not answer');
    await delay(500);
  }
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE);
  const wrong: string[] = [];
  page.on('pageerror', (error) => wrong.push(String(error)));
  await page.goto(url, { waitUntil: 'networkidle' });
  const first = async (): Promise<[string | null, number]> => {
    const hit = page.locator('#hits li').first();
    await hit.locator('img').evaluate((image) => (image as unknown as { decode(): Promise<void> }).decode());
    return [await hit.locator('div').textContent(), Number(await hit.locator('small').textContent())];
  };
  await page.fill('#text', 'red heart');
  await page.click('button[type=submit]');
  await page.locator('#said', { hasText: '12 images like "red heart"' }).waitFor();
  const [before] = await first();
  console.log(`"red heart" before the upload: ${before}`);
  await page.setInputFiles('#upload', path.join(drawings, UPLOADED));
  await page.locator('#said', { hasText: `12 images like ${UPLOADED}` }).waitFor();
  const [uploaded, likeness] = await first();
  assert.match(uploaded ?? '', /^uploads\/[0-9a-f]{64}\.png$/);
  assert.ok(likeness > 0.9999);
  assert.ok(existsSync(path.join(photos, uploaded ?? '')));
  await page.click('button[type=submit]');
  await page.locator('#said', { hasText: '12 images like "red heart"' }).waitFor();
  assert.deepEqual((await first())[0], uploaded);
  console.log(`"red heart" after it: ${uploaded}`);
  await page.locator('#hits li').nth(1).locator('img').click();
  await page.locator('#said', { hasText: '12 images like' }).waitFor();
  await page.setInputFiles('#upload', { name: 'x.png', mimeType: 'image/png', buffer: Buffer.from('no image') });
  await page.locator('#said', { hasText: 'PNG, JPEG, WebP, GIF and AVIF are shown here.' }).waitFor();
  assert.deepEqual(wrong, []);
  const again = await shop.run(photos);
  assert.match(again.stdout, /: 0 embedded with .*, 16 already done/);
  console.log(`the catalogue job afterwards: ${again.stdout.trim()}`);
} finally {
  if (next.pid !== undefined && next.exitCode === null) process.kill(-next.pid, 'SIGTERM');
  await browser.close();
  await shop.close();
}
