import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import { Rate, Report } from '../src/report.ts';

/** A stand-in for stderr that is no terminal. */
class Lines {
  readonly isTTY = false;
  text = '';
  write(text: string): boolean {
    this.text += text;
    return true;
  }
}

function report(t: TestContext, total: number): { report: Report; out: Lines; file: string } {
  const folder = mkdtempSync(path.join(tmpdir(), 'clipsrv-report-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const out = new Lines();
  const file = path.join(folder, 'failures.jsonl');
  return { report: new Report(total, file, out as unknown as NodeJS.WriteStream), out, file };
}

test('the rate is that of the last half minute, and the rest of the time follows from it', () => {
  const rate = new Rate();
  assert.equal(rate.remaining(10), '?');
  rate.add(0, 0);
  rate.add(1000, 10_000);
  assert.equal(rate.perSecond(), 100);
  for (let second = 11; second <= 60; second++) rate.add(1000 + (second - 10) * 10, second * 1000);
  assert.equal(rate.perSecond(), 10);
  assert.deepEqual([rate.remaining(50), rate.remaining(1200), rate.remaining(50_000)], ['5 s', '2 min', '1 h 23 min']);
});

test('failures are listed at the end and kept in a file, and without any there is no file', (t) => {
  const { report: failing, out, file } = report(t, 30);
  for (let i = 0; i < 25; i++) failing.failed({ id: `p${i}`, location: `p${i}.png`, code: 'not_an_image', message: 'no image' });
  failing.stored(5);
  assert.deepEqual(failing.close(), { total: 30, stored: 5, skipped: 0, failed: 25, due: 0, repeated: 0 });
  assert.equal(readFileSync(file, 'utf8').trim().split('\n').length, 25);
  assert.equal(out.text.match(/^failed: p\d+: not_an_image: no image$/gm)?.length, 20);
  assert.match(out.text, /and 5 more/);
  assert.match(out.text, /30\/30 \|/);
  new Report(1, file, out as unknown as NodeJS.WriteStream).close();
  assert.equal(existsSync(file), false);
});

test('what an id holds does not reach the terminal as it is', (t) => {
  const { report: failing, out, file } = report(t, 1);
  const id = `a\0b\nc\u001b[2J\ud800${'x'.repeat(5000)}`;
  failing.failed({ id, location: 'p.png', code: 'bad_entry', message: 'no\nid' });
  failing.close();
  assert.match(out.text, /^failed: a\\u0000b\\u000ac\\u001b\[2J\\ud800x{1,200}\.\.\.: bad_entry: no\\u000aid$/m);
  assert.equal((JSON.parse(readFileSync(file, 'utf8')) as { id: string }).id, id);
});
