/** The embedding server as a command meets it: a client for one of its models, and what that model is. */
import { ClipClient, type ModelDetails, type RetryNotice } from 'clipsrv-client';
import { RefusedError } from './errors.ts';
import type { SharedOptions } from './options/shared.ts';

export interface Model {
  readonly name: string;
  readonly dimensions: number;
  readonly embeddingId: string;
}

/** A client for `model`, or for the server's default. */
function clientOf(options: SharedOptions, onRetry?: (notice: RetryNotice) => void, model?: string): ClipClient {
  return new ClipClient({
    baseUrl: options.server,
    ...(options.apiKey === undefined ? {} : { apiKey: options.apiKey }),
    ...(model === undefined ? {} : { model }),
    concurrency: options.concurrency,
    maxImagesPerRequest: options.batch,
    retry: { maxAttempts: Number.POSITIVE_INFINITY, maxElapsedMs: options.patienceMs },
    ...(onRetry === undefined ? {} : { onRetry }),
  });
}

/** What the server embeds with when asked for `name`, or for nothing. Throws RefusedError if it has no such model. */
async function modelOf(client: ClipClient, name?: string): Promise<Model> {
  const { aliases, current, details } = await client.models();
  const asked = name === undefined ? current : (aliases?.[name] ?? name);
  const { dimensions, embedding_id: embeddingId } = details[asked] ?? {};
  if (name !== undefined && !isServed(details[asked])) {
    const offered = Object.keys(details).filter((model) => isServed(details[model]));
    throw new RefusedError(`The server at ${client.baseUrl} serves no model ${name}; it serves: ${offered.join(', ')}.`);
  }
  if (dimensions === undefined || embeddingId === undefined) {
    throw new RefusedError(`The server at ${client.baseUrl} does not say what its model ${current} makes.`);
  }
  return { name: asked, dimensions, embeddingId };
}

/** Those that are converted and not served are told of too; only those served say whether they are `loaded`. */
const isServed = (details: ModelDetails | undefined): boolean => details?.embedding_id !== undefined && 'loaded' in details;

export interface Served {
  readonly client: ClipClient;
  readonly model: Model;
}

/** The model of `embeddingId`, under whatever name the server has it; else, and where none is asked for, the server's default. */
export async function served(options: SharedOptions, signal: AbortSignal, embeddingId?: string, onRetry?: (notice: RetryNotice) => void): Promise<Served> {
  const client = clientOf(options, onRetry);
  await client.waitUntilReady(options.patienceMs, { signal });
  const model = await modelOf(client);
  if (embeddingId === undefined || model.embeddingId === embeddingId) return { client, model };
  const { details } = await client.models();
  const name = Object.keys(details).find((one) => isServed(details[one]) && details[one]?.embedding_id === embeddingId);
  return name === undefined ? { client, model } : { client: clientOf(options, onRetry, name), model: await modelOf(client, name) };
}

/** Throws RefusedError if the server has not the model whose vectors a catalogue shows. */
export function refuseOther(catalogue: string, shown: { readonly model: string; readonly embeddingId: string } | undefined, { client, model }: Served): void {
  if (shown === undefined || shown.embeddingId === model.embeddingId) return;
  throw new RefusedError(`${catalogue} shows vectors of ${shown.model} (embedding_id ${shown.embeddingId}), which the server at ${client.baseUrl} does not have.`);
}

/** The model of this name. Throws RefusedError if the server has none. */
export async function servedAs(options: SharedOptions, signal: AbortSignal, name: string): Promise<Served> {
  const client = clientOf(options);
  await client.waitUntilReady(options.patienceMs, { signal });
  const model = await modelOf(client, name);
  return { client: clientOf(options, undefined, model.name), model };
}
