/** The `duplicates` command: which images of a catalogue are the same, in bytes, in pixels, or nearly. Changes nothing. */
import path from 'node:path';
import { mapOrdered, type RetryNotice } from 'clipsrv-client';
import { Database } from '../database.ts';
import { groupsOf, type Placed } from '../duplicates/groups.ts';
import { Gallery, type Content, type Member } from '../duplicates/neighbours.ts';
import { pixelDigest, smallCopy } from '../duplicates/pixels.ts';
import { described, jsonOf, linesOf, type Group } from '../duplicates/report.ts';
import { Sheet } from '../duplicates/sheet.ts';
import { limitOf, measureCopies, quantile, readMember, thresholdOf } from '../duplicates/threshold.ts';
import { EntryError, RefusedError } from '../errors.ts';
import type { DuplicatesOptions } from '../options/duplicates.ts';
import { Report } from '../report.ts';
import { refuseOther, served } from '../server.ts';
import { sidesOf, type Side } from '../tables/catalogue.ts';
import { VectorTable } from '../tables/table.ts';

/** Returns the exit status: 0, also with duplicates, or 1 if an image of a group could not be read. */
export async function duplicatesCommand(options: DuplicatesOptions, signal: AbortSignal): Promise<number> {
  const { base: named, failures, html, json, patienceMs, table, threshold: given } = options;
  const onRetry = ({ error, delayMs }: RetryNotice): void => void process.stderr.write(`waiting ${(delayMs / 1000).toFixed(1)} s: ${error.message}\n`);
  const database = new Database({ url: options.database, patienceMs, signal, onRetry });
  const base = path.resolve(named ?? '.');
  let sheet: Sheet | undefined;
  let report: Report | undefined;
  try {
    const gallery = await galleryOf(database, table);
    const contents = await gallery.contents();
    const copies = given === undefined ? await copiesOf(gallery, options, base, signal) : undefined;
    if (html !== undefined) sheet = new Sheet(html, base);
    report = new Report(contents.length, failures);
    const { nearest, pairs, tenth } = await gallery.near(contents, copies === undefined ? (given ?? 0) : limitOf(copies), (count) => report?.stored(count), signal);
    const threshold = copies === undefined ? { distance: given ?? 0, lines: [`near: at most ${given} apart, as --threshold says`] } : thresholdOf(copies, tenth);
    const groups = withCopies(groupsOf(pairs.filter(({ distance }) => distance <= threshold.distance)), contents);
    const lines = [...threshold.lines, distribution(nearest)];
    sheet?.begin(lines, nearest, threshold.distance);
    const counts = { bytes: 0, pixels: 0, near: 0, groups: 0, images: 0 };
    const look = (placed: readonly Placed[]) => lookAt(placed, { contents, gallery, base, signal, isPictured: sheet !== undefined, failed: (failure) => report?.failed(failure) });
    for await (const { group, images } of mapOrdered(groups, 2, look, signal)) {
      counts.groups++;
      counts.images += group.length;
      for (const { same } of group) if (same !== undefined) counts[same]++;
      process.stdout.write(json ? jsonOf(group) : linesOf(group));
      sheet?.add(group, images);
    }
    sheet?.end();
    const { failed } = report.close();
    const said = [`${counts.groups} groups of ${counts.images} images: ${counts.bytes} of the same bytes, ${counts.pixels} of the same pixels, ${counts.near} near`, ...lines];
    (json ? process.stderr : process.stdout).write(`${said.join('\n')}\n`);
    return failed > 0 ? 1 : 0;
  } catch (error) {
    sheet?.abandon();
    report?.close();
    throw error;
  } finally {
    await database.close();
  }
}

const distribution = (nearest: Float64Array): string =>
  nearest.length === 0 ? 'no image has a neighbour'
  : `nearest neighbours of ${nearest.length} images: ${[0.01, 0.1, 0.5, 0.9].map((part) => `${part * 100} % within ${Math.max(0, quantile(nearest, part)).toFixed(4)}`).join(', ')}`;

/** The rows of the model that counts. */
async function galleryOf(database: Database, name: string): Promise<Gallery> {
  const current = (await sidesOf(database, name)).find(({ isCurrent }) => isCurrent);
  const table = new VectorTable(database, current?.table ?? name);
  if ((await table.dimensions()) === undefined) throw new RefusedError(`There is no table ${table.name}: embed a catalogue first.`);
  const kinds = await table.kinds();
  const embeddingId = kinds.find((kind) => kind === current?.embeddingId) ?? kinds[0];
  if (embeddingId === undefined) throw new RefusedError(`${table.name} is empty: embed a catalogue first.`);
  if (kinds.length > 1 && embeddingId !== current?.embeddingId) throw new RefusedError(`${table.name} has vectors of ${kinds.length} models (${kinds.join(', ')}): bring it to one with embed --reembed first.`);
  return new Gallery(database, table.name, embeddingId);
}

async function copiesOf(gallery: Gallery, options: DuplicatesOptions, base: string, signal: AbortSignal) {
  const found = await served(options, signal, gallery.embeddingId);
  const shown: Pick<Side, 'model' | 'embeddingId'> = { model: 'another model', embeddingId: gallery.embeddingId };
  refuseOther(options.table, shown, found);
  return measureCopies(gallery, found.client, options.sample, base, signal);
}

/** And those contents that are in no group and more than once in the catalogue; by the first of each. */
function withCopies(groups: readonly (readonly Placed[])[], contents: readonly Content[]): readonly (readonly Placed[])[] {
  const placed = new Set(groups.flatMap((group) => group.map(({ place }) => place)));
  const alone = contents.flatMap(({ rows }, place) => (rows > 1 && !placed.has(place) ? [[{ place, distance: 0 }]] : []));
  return [...groups, ...alone].toSorted((a, b) => (a[0]?.place ?? 0) - (b[0]?.place ?? 0));
}

interface Looking {
  readonly contents: readonly Content[];
  readonly gallery: Gallery;
  readonly base: string;
  readonly signal: AbortSignal;
  readonly isPictured: boolean;
  readonly failed: (failure: { id: string; location: string; code: string; message: string }) => void;
}

/** The rows of a group, with what its images look like; of a group one image after another, for each may be large. */
async function lookAt(placed: readonly Placed[], { contents, gallery, base, signal, isPictured, failed }: Looking): Promise<{ group: Group; images: Map<string, string> }> {
  const keys = contents.map(({ key }) => key);
  const rows = new Map<string, Member[]>();
  for (const row of await gallery.members(placed.map(({ place }) => keys[place] ?? ''))) rows.set(row.key, [...(rows.get(row.key) ?? []), row]);
  const [pixels, images] = [new Map<string, string>(), new Map<string, string>()];
  for (const [key, [first]] of rows) {
    if (first === undefined || (placed.length < 2 && !isPictured)) continue;
    try {
      const bytes = await readMember(first, base, signal);
      if (isPictured) images.set(key, await smallCopy(bytes));
      if (placed.length > 1) pixels.set(key, await pixelDigest(bytes));
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof EntryError)) throw error;
      failed({ id: first.id, location: first.location, code: error.code, message: error.message });
    }
  }
  return { group: described(placed, keys, rows, pixels), images };
}
