/** The `search` command: the images nearest to an image or a text. */
import { Database } from './database.ts';
import { clientOf, modelOf } from './embed.ts';
import { RefusedError } from './errors.ts';
import { loadImage } from './load.ts';
import type { Options } from './options.ts';
import { VectorTable } from './table.ts';

/** Prints the hits, best first. Returns 0, also when there is none. */
export async function searchCommand(options: Options, signal: AbortSignal): Promise<number> {
  const database = new Database({ url: options.database, patienceMs: SEARCH_PATIENCE_MS, signal });
  try {
    const client = clientOf({ ...options, patienceMs: SEARCH_PATIENCE_MS });
    const vector =
      options.text === undefined
        ? await client.embedImage(await loadImage(options.image ?? '', '.', signal), { signal })
        : await client.embedText(options.text, { signal });
    const model = await modelOf(client);
    const table = new VectorTable(database, options.table);
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
