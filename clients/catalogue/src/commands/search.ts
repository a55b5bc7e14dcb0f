/** The `search` command: the images nearest to an image or a text. */
import { Database } from '../database.ts';
import { RefusedError } from '../errors.ts';
import { find, type Found } from '../hybrid/find.ts';
import { functionName, textsOf } from '../hybrid/function.ts';
import { loadImage } from '../load.ts';
import type { SearchOptions } from '../options/search.ts';
import { shown } from '../report.ts';
import { refuseOther, served } from '../server.ts';
import { sidesOf } from '../tables/catalogue.ts';
import { VectorTable } from '../tables/table.ts';

/** Prints the hits, best first. Returns 0, also when there is none. */
export async function searchCommand(options: SearchOptions, signal: AbortSignal): Promise<number> {
  const database = new Database({ url: options.database, patienceMs: SEARCH_PATIENCE_MS, signal });
  try {
    const sides = await sidesOf(database, options.table);
    const current = sides.find(({ isCurrent }) => isCurrent);
    const found = await served({ ...options, patienceMs: SEARCH_PATIENCE_MS }, signal, current?.embeddingId);
    if (sides.length > 1) refuseOther(options.table, current, found);
    const { client, model } = found;
    const table = new VectorTable(database, current?.table ?? options.table);
    const dimensions = await table.dimensions();
    if (dimensions !== model.dimensions) {
      throw new RefusedError(
        dimensions === undefined
          ? `There is no table ${table.name}: embed a catalogue first.`
          : `${table.name} holds vectors of ${dimensions} dimensions, ${model.name} makes ${model.dimensions}.`,
      );
    }
    const { text, image, limit, not, notImages, filters } = options;
    const ofImage = async (file: string): Promise<Float32Array> => client.embedImage(await loadImage(file, '.', signal), { signal });
    const vector = text === undefined ? await ofImage(image ?? '') : await client.embedText(text, { signal });
    const isPlain = not.length === 0 && notImages.length === 0 && Object.keys(filters).length === 0;
    if ((await textsOf(database, options.table)) === undefined) {
      if (!isPlain) throw new RefusedError(`--not, --not-image and --where need ${functionName(options.table)}, which the command index makes.`);
      for (const [i, hit] of (await table.nearest(vector, model.embeddingId, limit)).entries()) print(options, i, hit, hit.similarity);
      return 0;
    }
    const notVectors = [...(await client.embedTexts(not, { signal })), ...(await Promise.all(notImages.map(ofImage)))];
    const wish = { words: text, vector, embeddingId: model.embeddingId, limit, filters, notWords: not, notVectors };
    for (const [i, hit] of (await find(database, options.table, wish)).entries()) print(options, i, hit, hit.score, whyFound(hit));
    return 0;
  } finally {
    await database.close();
  }
}

const SEARCH_PATIENCE_MS = 10_000;

function print({ json }: SearchOptions, place: number, hit: { readonly id: string; readonly location: string }, score: number, why = ''): void {
  const name = hit.id === hit.location ? hit.id : `${hit.id}  ${hit.location}`;
  const line = json ? JSON.stringify(hit) : `${String(place + 1).padStart(3)}  ${score.toFixed(4)}  ${name}${why}`;
  process.stdout.write(`${line}\n`);
}

/** By what a hit was found: its place in each list, how like the image is, and how much of the query is in which column. */
function whyFound({ vector_rank: rank, similarity, texts }: Found): string {
  const image = `image ${similarity.toFixed(4)}${rank === null ? '' : ` #${rank}`}`;
  const words = texts.map((text) => `${text.column} ${text.exact ? 'is' : `${Math.round(100 * text.share)} % in`} "${shown(text.text)}" #${text.rank}`);
  return `  (${[image, ...words].join('; ')})`;
}
