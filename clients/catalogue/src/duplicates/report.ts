/** What is the same in a group of images and as which of them, and how it is told: in lines for people, in JSON. */
import { shown } from '../report.ts';
import type { Placed } from './groups.ts';
import type { Member } from './neighbours.ts';

/** A row of a group; the first row has neither `same` nor `as`. */
export interface Alike extends Member {
  /** Undefined where the image could not be decoded. */
  readonly pixels: string | undefined;
  readonly same: 'bytes' | 'pixels' | 'near' | undefined;
  /** The id of the image before it that it is the same as. */
  readonly as: string;
  /** Cosine distance to the first of the group. */
  readonly distance: number;
}

export type Group = readonly Alike[];

/** The rows of the contents of a group. `keys` are those of all contents, by their places; `pixels` has digests by key. */
export function described(placed: readonly Placed[], keys: readonly string[], rows: ReadonlyMap<string, readonly Member[]>, pixels: ReadonlyMap<string, string>): Group {
  const group: Alike[] = [];
  const [byKey, byPixels] = [new Map<string, string>(), new Map<string, string>()];
  for (const { place, distance } of placed) {
    for (const row of rows.get(keys[place] ?? '') ?? []) {
      const digest = pixels.get(row.key);
      const [bytes, look] = [byKey.get(row.key), digest === undefined ? undefined : byPixels.get(digest)];
      const same = group.length === 0 ? undefined : bytes !== undefined ? 'bytes' : look !== undefined ? 'pixels' : 'near';
      group.push({ ...row, pixels: digest, same, as: bytes ?? look ?? group[0]?.id ?? '', distance: Math.max(0, distance) });
      if (bytes === undefined) byKey.set(row.key, row.id);
      if (digest !== undefined && look === undefined) byPixels.set(digest, row.id);
    }
  }
  return group;
}

export function linesOf(group: Group): string {
  const [first, ...others] = group;
  const head = `${group.length} images: ${shown(first?.id ?? '')}\n`;
  return head + others.map(({ id, same, as, distance }) =>
    same === 'near' ? `  ${distance.toFixed(4)}       ${shown(id)}\n` : `  ${`same ${same}`.padEnd(11)}  ${shown(id)}${as === first?.id ? '' : ` (as ${shown(as)})`}\n`).join('');
}

export const jsonOf = (group: Group): string =>
  `${JSON.stringify({
    images: group.map(({ id, location, sha256, pixels, same, as, distance }) => ({
      id, location, sha256, ...(pixels === undefined ? {} : { pixels }), ...(same === undefined ? {} : { same, as }), distance,
    })),
  })}\n`;
