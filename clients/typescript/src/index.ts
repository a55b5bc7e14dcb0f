export { followAbort } from './abort.js';
export type { Classification, Health, ImageResult, LabelScore, ModelDetails, Models } from './answers.js';
export {
  ClipClient, type CallOptions, type ClassifyOptions, type Crop, type EmbedImageOptions, type StreamOptions,
} from './client.js';
export { generateEmbeddingLocal, generateEmbeddingsBatch } from './dropins.js';
export { toNumbers, type ImageBytes } from './encoding.js';
export * from './errors.js';
export type { StreamResult } from './one-request.js';
export type { ClipClientOptions } from './options.js';
export { delayBeforeRetry, isTransient, sleep, withRetry, type RetryNotice, type RetryOptions, type RetryPolicy } from './retry.js';
export { group, mapOrdered } from './streams.js';
