/** Pairs that are near become groups around one image each, so that no chain of likenesses joins what is unlike. Computes only. */
import type { Pair } from './neighbours.ts';

/** A content, and how far it is from the first of its group: 0 for that one itself. */
export interface Placed {
  readonly place: number;
  readonly distance: number;
}

/**
 * The nearest pairs come first: of a pair that has no group the earlier content leads a new one, and a content that has none joins the
 * group of its partner if the leader, too, is near. What is left of a pair then makes a group around its partner, who is in two: every
 * content of a pair is in a group, and no farther from its leader than the pairs go. The leader is first, the others by distance.
 */
export function groupsOf(pairs: readonly Pair[]): readonly (readonly Placed[])[] {
  const distances = new Map(pairs.map(({ one, other, distance }) => [`${one} ${other}`, distance]));
  const between = (a: number, b: number): number | undefined => distances.get(a < b ? `${a} ${b}` : `${b} ${a}`);
  const groups = new Map<number, Placed[]>();
  const leaders = new Map<number, number>();
  const join = (place: number, leader: number): void => {
    const distance = between(place, leader);
    if (distance === undefined) return;
    leaders.set(place, leader);
    groups.get(leader)?.push({ place, distance });
  };
  const byDistance = pairs.toSorted((a, b) => rounded(a) - rounded(b) || a.one - b.one || a.other - b.other);
  for (const { one, other } of byDistance) {
    const [first, second] = [leaders.get(one), leaders.get(other)];
    if (first === undefined && second === undefined) {
      leaders.set(one, one);
      groups.set(one, [{ place: one, distance: 0 }]);
      join(other, one);
    } else if (first === undefined && second !== undefined) join(one, second);
    else if (second === undefined && first !== undefined) join(other, first);
  }
  for (const { one, other } of byDistance) {
    for (const [place, partner] of [[one, other], [other, one]] as const) {
      if (leaders.has(place)) continue;
      if (!groups.has(partner)) groups.set(partner, [{ place: partner, distance: 0 }]);
      join(place, partner);
    }
  }
  return [...groups.values()].map((group) => group.toSorted((a, b) => a.distance - b.distance || a.place - b.place));
}

/** Equal vectors differ in their last bits, which must not decide who leads. */
const rounded = ({ distance }: Pair): number => Math.round(distance * 1e6);
