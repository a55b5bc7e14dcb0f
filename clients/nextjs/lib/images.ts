/** The folder of images that the catalogue was made of: uploads go below it, so that the catalogue job finds them where the rows say. */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';

export const MOST_BYTES = 20 * 1024 * 1024;

/** By their first bytes, the formats that browsers show. */
const KINDS: readonly (readonly [signature: string, at: number, type: string, ending: string])[] = [
  ['89504e470d0a1a0a', 0, 'image/png', 'png'],
  ['ffd8ff', 0, 'image/jpeg', 'jpg'],
  ['47494638', 0, 'image/gif', 'gif'],
  ['57454250', 8, 'image/webp', 'webp'],
  ['6674797061766966', 4, 'image/avif', 'avif'],
];

const folder = (): string => path.resolve(process.env['PHOTOS'] ?? '../../photos');

/** The Content-Type of an image and the ending of its name; undefined for what no browser shows. */
export function kindOf(bytes: Buffer): { readonly type: string; readonly ending: string } | undefined {
  const kind = KINDS.find(([signature, at]) => bytes.subarray(at, at + signature.length / 2).toString('hex') === signature);
  return kind && { type: kind[2], ending: kind[3] };
}

/** Writes an upload under the name of its content, so the same upload twice is one. The id is the path inside the folder, as the catalogue job has it. */
export async function keep(bytes: Buffer, ending: string): Promise<{ readonly id: string; readonly location: string; readonly sha256: string }> {
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  const id = `uploads/${sha256}.${ending}`;
  const file = path.join(folder(), id);
  await mkdir(path.dirname(file), { recursive: true });
  // Written beside its place and moved: nobody reads half of it.
  const part = path.join(path.dirname(file), `.${sha256}.${process.pid}.part`);
  await writeFile(part, bytes);
  await rename(part, file);
  return { id, location: id, sha256 };
}

/** The bytes of an image of the catalogue; undefined if its location leads out of the folder, or to nothing. */
export async function read(location: string): Promise<Buffer | undefined> {
  const file = path.resolve(folder(), location);
  if (!file.startsWith(folder() + path.sep)) return undefined;
  return readFile(file).catch(() => undefined);
}
