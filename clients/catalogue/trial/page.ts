/** What docs/catalogue.md prints to be run: its blocks in their order, and the commands in its sentences. Runs nothing. */
import { readFileSync } from 'node:fs';

export interface Printed {
  /** Of the block: sh and bash, sql, ts, text; `inline` is a command in a sentence. */
  readonly kind: string;
  /** One command of a shell's block, all of any other. */
  readonly text: string;
}

const SHELLS: ReadonlySet<string> = new Set(['sh', 'bash']);
const COMMAND = /^(npm|npx|psql|scripts\/|(embed|search|index|migrate|watch|duplicates) -)/;

export function printedOn(page: string): readonly Printed[] {
  const text = readFileSync(page, 'utf8');
  const printed: Printed[] = [];
  for (const [, kind = '', block = '', inline = ''] of text.matchAll(/^```(\w+)\n(.*?)^```$|(?<!`)`([^`]+)`(?!`)/gms)) {
    const one = inline.replace(/\s+/g, ' ');
    if (SHELLS.has(kind)) printed.push(...block.trim().split('\n').map((line) => ({ kind: 'sh', text: line })));
    else if (kind !== '') printed.push({ kind, text: block.trimEnd() });
    else if (COMMAND.test(one)) printed.push({ kind: 'inline', text: one });
  }
  return printed;
}

/** Every option that the page names. */
export const optionsOn = (page: string): ReadonlySet<string> =>
  new Set(Array.from(readFileSync(page, 'utf8').matchAll(/(?<![\w-])--[a-z][a-z-]*/g), ([name]) => name));
