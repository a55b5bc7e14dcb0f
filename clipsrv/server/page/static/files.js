/** Files out of what was dropped, pasted or chosen, whole folders too. Knows nothing of what becomes
 * of them. */

/** @typedef {{file: File, path: string}} Found `path` is the file's way within what was dropped */

const ENDINGS = /\.(jpe?g|png|webp|gif|bmp|tiff?|avif|heic|heif)$/i;

/** @param {File} file whether it is an image, by its type or its name */
export function isImage(file) {
  return (file.type.startsWith('image/') && file.type !== 'image/svg+xml') || ENDINGS.test(file.name);
}

/**
 * @param {Iterable<File> | null} list of an input
 * @returns {Found[]}
 */
export function chosen(list) {
  return [...(list ?? [])].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
}

/**
 * A copy that cannot go while it is sent, null if the file has gone already. What has more bytes than `most` stays where
 * it is: the server says how many it takes.
 * @param {File | null} file
 * @param {number} most
 */
export async function inMemory(file, most) {
  if (!file || file.size > most) return file;
  return file.arrayBuffer().then((bytes) => new File([bytes], file.name, { type: file.type })).catch(() => null);
}

/**
 * All files of a drop, in the order of their names within a folder.
 * @param {DataTransfer} transfer
 * @returns {Promise<Found[]>}
 */
export async function dropped(transfer) {
  // Read now: the items are gone once this function has waited for anything.
  const entries = [...transfer.items].map((item) => (item.kind === 'file' ? item.webkitGetAsEntry() : null));
  if (entries.every((entry) => entry === null)) return chosen(transfer.files);
  const found = [];
  for (const entry of entries) if (entry) found.push(...(await within(entry)));
  return found;
}

/**
 * @param {FileSystemEntry} entry
 * @returns {Promise<Found[]>}
 */
async function within(entry) {
  if (entry.isFile) {
    const file = await new Promise((/** @type {(file: File | null) => void} */ resolve) =>
      /** @type {FileSystemFileEntry} */ (entry).file(resolve, () => resolve(null)),
    );
    return file ? [{ file, path: entry.fullPath.replace(/^\//, '') }] : [];
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  /** @type {FileSystemEntry[]} */
  const entries = [];
  for (;;) {
    // A hundred at a time, an empty list at the end.
    const more = await new Promise((/** @type {(found: FileSystemEntry[]) => void} */ resolve) => reader.readEntries(resolve, () => resolve([])));
    if (more.length === 0) break;
    entries.push(...more);
  }
  entries.sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }));
  const found = [];
  for (const one of entries) found.push(...(await within(one)));
  return found;
}
