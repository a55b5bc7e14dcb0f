/** The marks of a source's entries: of a file its size and times, of a URL nothing, beside what a query says of its rows. */
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { mapOrdered } from 'clipsrv-client';
import { isUrl } from '../load.ts';
import type { Entry, Source } from '../sources/source.ts';
import type { Marked } from './changes.ts';

const AT_ONCE = 16;

/** `onFolder` is told every folder in which an image lies. */
export async function* marked({ base, entries }: Source, onFolder: (folder: string) => void, signal: AbortSignal): AsyncGenerator<Marked> {
  const mark = async (entry: Entry): Promise<Marked> => {
    if (!('item' in entry) || isUrl(entry.item.location)) return { entry, mark: 'item' in entry ? (entry.mark ?? '') : '', isFile: false };
    const file = fileOf(entry.item.location, base);
    if (file === undefined) return { entry, mark: '', isFile: false };
    onFolder(path.dirname(file));
    return { entry, mark: `${entry.mark ?? ''} ${await traitsOf(file)}`, isFile: true };
  };
  yield* mapOrdered(entries(), AT_ONCE, mark, signal);
}

/** Undefined for what can be no name of a file: it fails when it is read. */
function fileOf(location: string, base: string): string | undefined {
  try {
    return location.startsWith('file:') ? fileURLToPath(location) : path.resolve(base, location);
  } catch {
    return undefined;
  }
}

/** Copies may keep a file's date, but not the time of its last change of any kind. */
const traitsOf = (file: string): Promise<string> =>
  stat(file).then(({ size, mtimeMs, ctimeMs, ino }) => `${size} ${mtimeMs} ${ctimeMs} ${ino}`, (error: NodeJS.ErrnoException) => error.code ?? 'unreadable');
