/** The contact sheet: one HTML file with small copies inside, which runs no script and asks for nothing. Knows no database. */
import { appendFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { RefusedError } from '../errors.ts';
import { isUrl } from '../load.ts';
import { shown } from '../report.ts';
import type { Group } from './report.ts';
import { quantile } from './threshold.ts';

const BARS = 40;
const STYLE = `:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif } body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
section { border-top: 1px solid #8886; padding: .5rem 0 } ul { display: flex; flex-wrap: wrap; gap: 1rem; list-style: none; padding: 0 }
li { width: 10rem; overflow-wrap: anywhere } img, .none { width: 10rem; height: 10rem; object-fit: contain; background: repeating-conic-gradient(#8882 0 25%, #fff2 0 50%) 0 0/1rem 1rem }
.none { display: block } small { display: block; opacity: .75 } rect { fill: #4a7fb5 } rect.near { fill: #c2410c } figure { margin: 1rem 0 } svg { width: 100%; height: 6rem }`;

/** Throws RefusedError where no file can be made. Is written beside its place and moved there at the end: a sheet is whole, or is not there. */
export class Sheet {
  readonly #part: string;

  constructor(
    readonly file: string,
    /** Relative locations are relative to this folder. */
    readonly base: string,
  ) {
    this.#part = `${file}.part`;
    const policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";
    this.#begin(`<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width"><title>Duplicates</title><style>${STYLE}</style>\n<h1>Duplicates</h1>\n`);
  }

  /** What was compared and how, and how far images are from their nearest neighbours. */
  begin(lines: readonly string[], nearest: Float64Array, threshold: number): void {
    this.#add(lines.map((line) => `<p>${escaped(line)}</p>\n`).join(''));
    if (nearest.length > 0) this.#add(histogram(nearest, threshold));
  }

  /** `images` has the small copies by the contents' keys. */
  add(group: Group, images: ReadonlyMap<string, string>): void {
    const cells = group.map(({ key, id, location, same, as, distance }) => {
      const image = images.get(key);
      const seen = image === undefined ? '<span class="none"></span>' : `<img loading="lazy" alt="" src="${image}">`;
      const link = isUrl(location) ? location : pathToFileURL(path.resolve(this.base, location)).href;
      const words = same === undefined ? `${group.length} images` : same === 'near' ? `distance ${distance.toFixed(4)}` : `same ${same} as <bdi>${escaped(as)}</bdi>`;
      return `<li><a href="${escaped(link)}" rel="noreferrer">${seen}</a><bdi>${escaped(id)}</bdi><small>${words}</small></li>`;
    });
    this.#add(`<section><ul>${cells.join('\n')}</ul></section>\n`);
  }

  end(): void {
    this.#add('</html>\n');
    renameSync(this.#part, this.file);
  }

  /** Leaves no half of it behind. */
  abandon(): void {
    rmSync(this.#part, { force: true });
  }

  #begin(text: string): void {
    try {
      writeFileSync(this.#part, text);
    } catch (error) {
      throw new RefusedError(`--html ${this.file} cannot be written: ${(error as Error).message}`);
    }
  }

  #add(text: string): void {
    appendFileSync(this.#part, text);
  }
}

const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

const escaped = (text: string): string => shown(text).replace(/[&<>"']/g, (character) => ENTITIES[character] ?? '');

/** How many images have their nearest neighbour how far away, from 0 to where all but a hundredth have theirs. */
function histogram(nearest: Float64Array, threshold: number): string {
  const width = Math.max(quantile(nearest, 0.99), threshold, 1e-6) / BARS;
  const counts = Array.from({ length: BARS }, (_, i) => nearest.filter((distance) => Math.min(BARS - 1, Math.max(0, Math.floor(distance / width))) === i).length);
  const most = Math.max(...counts);
  const bars = counts.map((count, i) => {
    const height = (100 * count) / most;
    return `<rect${(i + 0.5) * width <= threshold ? ' class="near"' : ''} x="${i * 10}" y="${(100 - height).toFixed(1)}" width="9" height="${height.toFixed(1)}"><title>${(i * width).toFixed(4)} to ${((i + 1) * width).toFixed(4)}: ${count}</title></rect>`;
  });
  return `<figure><svg viewBox="0 0 ${BARS * 10} 100" preserveAspectRatio="none" role="img" aria-label="Distances of the nearest neighbours">${bars.join('')}</svg>
<figcaption>How far images are from their nearest neighbours: 0 on the left, ${(BARS * width).toFixed(4)} on the right. Red: near.</figcaption></figure>\n`;
}
