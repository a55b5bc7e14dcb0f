/** The images below a folder, by their names. */
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { IMAGE_SUFFIXES } from '../contract.ts';
import type { Entry } from './source.ts';

const utf8 = new TextDecoder('utf-8', { fatal: true });

/**
 * The id is the path inside the folder, with forward slashes. Hidden files and folders are left out, and links to folders, so
 * that no loop can form.
 */
export async function* folderEntries(root: string, inside = ''): AsyncGenerator<Entry> {
  // As bytes: two names that are not UTF-8 must not become one with U+FFFD in it.
  const found = await readdir(path.join(root, inside), { withFileTypes: true, encoding: 'buffer' });
  const children = found.map((entry) => ({ entry, name: nameOf(entry.name) }));
  children.sort((a, b) => (a.name.text < b.name.text ? -1 : 1));
  for (const { entry, name } of children) {
    if (name.text.startsWith('.')) continue;
    const id = inside === '' ? name.text : `${inside}/${name.text}`;
    const isFolder = entry.isDirectory();
    if (!isFolder && !IMAGE_SUFFIXES.has(path.extname(name.text).toLowerCase())) continue;
    if (!name.isUtf8) yield { where: path.join(root, id), problem: 'its name is not UTF-8: rename it' };
    else if (isFolder) yield* folderEntries(root, id);
    else if (!entry.isSymbolicLink() || !(await isLinkToFolder(path.join(root, id)))) yield { item: { id, location: id } };
  }
}

/** `text` of a name that is not UTF-8 is what a person sees of it. */
function nameOf(bytes: Buffer): { readonly text: string; readonly isUtf8: boolean } {
  try {
    return { text: utf8.decode(bytes), isUtf8: true };
  } catch {
    return { text: bytes.toString(), isUtf8: false };
  }
}

const isLinkToFolder = (name: string): Promise<boolean> => stat(name).then((found) => found.isDirectory(), () => false);
