/** The `search` command: the images nearest to an image or a text. */
import { Database } from '../database.ts';
import { RefusedError } from '../errors.ts';
import { loadImage } from '../load.ts';
import type { SearchOptions } from '../options.ts';
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
    const vector =
      options.text === undefined
        ? await client.embedImage(await loadImage(options.image ?? '', '.', signal), { signal })
        : await client.embedText(options.text, { signal });
    const table = new VectorTable(database, current?.table ?? options.table);
    const dimensions = await table.dimensions();
    if (dimensions !== model.dimensions) {
      throw new RefusedError(
        dimensions === undefined
          ? `There is no table ${table.name}: embed a catalogue first.`
          : `${table.name} holds vectors of ${dimensions} dimensions, ${model.name} makes ${model.dimensions}.`,
      );
    }
    for (const [i, hit] of (await table.nearest(vector, model.embeddingId, options.limit)).entries()) {
      const line = options.json ? JSON.stringify(hit) : `${String(i + 1).padStart(3)}  ${hit.similarity.toFixed(4)}  ${nameOf(hit)}`;
      process.stdout.write(`${line}\n`);
    }
    return 0;
  } finally {
    await database.close();
  }
}

const SEARCH_PATIENCE_MS = 10_000;

const nameOf = ({ id, location }: { id: string; location: string }): string => (id === location ? id : `${id}  ${location}`);
