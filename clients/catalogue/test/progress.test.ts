import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { Progress } from '../src/progress.ts';

/** A stream that keeps what is written to it, as a terminal or not. */
function kept(isTTY: boolean): { out: NodeJS.WriteStream; text: () => string } {
  const out = Object.assign(new PassThrough(), { isTTY, columns: 80, cursorTo: () => true, clearLine: () => true, moveCursor: () => true }) as unknown as NodeJS.WriteStream;
  let text = '';
  out.on('data', (chunk: Buffer) => (text += chunk.toString()));
  return { out, text: () => text };
}

test('on a terminal a bar shows the share and the phase, elsewhere a line now and then', () => {
  const [terminal, file, seldom] = [kept(true), kept(false), kept(false)];
  for (const [{ out }, everyMs] of [[terminal, 0], [file, 0], [seldom, 60_000]] as const) {
    const progress = new Progress('making an index', out, everyMs);
    for (const share of [0.25, 0.5]) progress.update(share, 'loading');
    progress.close();
  }
  assert.match(terminal.text(), /making an index .*50% \| loading/);
  assert.equal(file.text(), 'making an index: 25 % | loading\nmaking an index: 50 % | loading\n');
  assert.equal(seldom.text(), '');
});
