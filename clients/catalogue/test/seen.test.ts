import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Seen } from '../src/seen.ts';

test('an id is new once, however many there are, and a location is told from another', () => {
  const seen = new Seen();
  const count = 20_000;
  for (let i = 0; i < count; i++) assert.equal(seen.add(`id ${i}`, `location ${i}`), 'new');
  for (let i = 0; i < count; i++) {
    assert.equal(seen.add(`id ${i}`, `location ${i}`), 'same');
    assert.equal(seen.add(`id ${i}`, `location ${i + 1}`), 'other');
    assert.equal(seen.add(`id ${i}`, `location ${i}`), 'same');
  }
  assert.equal(seen.add('', ''), 'new');
});
