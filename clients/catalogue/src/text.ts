/** Text files in whatever encoding they were saved, in pieces or lines, in bounded memory. Knows nothing of catalogues. */
import { createReadStream } from 'node:fs';
import { TextDecoder } from 'node:util';
import { RefusedError } from './errors.ts';

/** No line or record of a catalogue is longer, in characters: what is longer is something else, and would be held in memory. */
export const LONGEST_RECORD = 16 * 1024 * 1024;

const MARKS: readonly (readonly [string, string])[] = [['efbbbf', 'utf-8'], ['fffe', 'utf-16le'], ['feff', 'utf-16be']];
/** What Python and Windows call what the platform knows by another name. */
const ALIASES: Readonly<Record<string, string>> = { cp932: 'shift_jis', ms932: 'shift_jis' };

/** A decoder of `encoding`, which throws on what is not in it. Throws RefusedError for an encoding that is not known. */
export function decoderOf(encoding: string): TextDecoder {
  try {
    return new TextDecoder(ALIASES[encoding.toLowerCase()] ?? encoding, { fatal: true });
  } catch {
    throw new RefusedError(`--encoding ${encoding} is none that is known here: utf-8, utf-16le, shift_jis, windows-1252 and such.`);
  }
}

/**
 * The text of a file, without a byte order mark. The mark tells the encoding; without one it is `encoding`, else UTF-8.
 * Throws RefusedError for a file in another one: what cannot be read must not become other words.
 */
export async function* textOf(file: string, encoding: string | undefined): AsyncGenerator<string> {
  const input = createReadStream(file);
  let decoder: TextDecoder | undefined;
  try {
    for await (const chunk of input as AsyncIterable<Buffer>) {
      decoder ??= decoderOf(markedEncoding(chunk) ?? encoding ?? assumeUtf8(chunk, file));
      yield decoder.decode(chunk, { stream: true });
    }
    yield decoder?.decode() ?? '';
  } catch (error) {
    if (!(error instanceof TypeError) || decoder === undefined) throw error;
    const cure = 'name it with --encoding: shift_jis (Japanese Excel), windows-1252 (Western), utf-16le';
    throw new RefusedError(`${file} is not in ${decoder.encoding}; ${cure}.`);
  } finally {
    input.destroy();
  }
}

function markedEncoding(chunk: Buffer): string | undefined {
  const head = chunk.subarray(0, 3).toString('hex');
  return MARKS.find(([mark]) => head.startsWith(mark))?.[1];
}

function assumeUtf8(chunk: Buffer, file: string): string {
  if (chunk.includes(0)) throw new RefusedError(`${file} holds NUL bytes: if it is UTF-16, give --encoding utf-16le or utf-16be.`);
  return 'utf-8';
}

/** The lines of a text. Throws RefusedError for one that is longer than LONGEST_RECORD. */
export async function* linesOf(text: AsyncIterable<string>, file: string): AsyncGenerator<string> {
  let rest = '';
  for await (const piece of text) {
    const [first = '', ...others] = piece.split('\n');
    rest += first;
    for (const next of others) {
      yield rest;
      rest = next;
    }
    if (rest.length > LONGEST_RECORD) throw new RefusedError(`${file} has a line of more than ${LONGEST_RECORD} characters.`);
  }
  if (rest !== '') yield rest;
}
