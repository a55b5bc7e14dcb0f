/** Shapes of the server's answers, checked as they come in. */
import { decodeVector } from './encoding.js';
import { ClipProtocolError, serverError, type ClipServerError } from './errors.js';
import type { Line } from './lines.js';
import { isRecord, type Reply } from './transport.js';

export interface Health {
  /** `healthy`, or why not: `starting`, `draining`, `unhealthy`. */
  readonly status: string;
  readonly model: string;
  /** The device in use, never the one asked for. */
  readonly device: string;
  readonly dimensions: number;
  readonly [further: string]: unknown;
}

export interface ModelDetails {
  /** False for a known name whose model is not on the server's disk; then the rest is missing. */
  readonly converted: boolean;
  readonly dimensions?: number;
  readonly embedding_id?: string;
  readonly [further: string]: unknown;
}

export interface Models {
  readonly models: readonly string[];
  readonly current: string;
  /** Further names of models that are served. */
  readonly aliases?: Readonly<Record<string, string>>;
  readonly details: Readonly<Record<string, ModelDetails>>;
}

export interface LabelScore {
  readonly label: string;
  /** From 0 to 1, as the model was trained to score: see `Classification.scoring`. */
  readonly score: number;
  /** The cosine of the image's vector and the label's. */
  readonly similarity: number;
}

export interface Classification {
  /** Best first. */
  readonly labels: readonly LabelScore[];
  /** `softmax`: the scores of an image add up to 1. `sigmoid`: each label is judged by itself. */
  readonly scoring: 'softmax' | 'sigmoid';
  readonly model: string;
  /** Labels of which the model read the beginning only. */
  readonly truncated: readonly string[];
  /** Labels in the letters of no language that the model knows, if there are any: their scores mean little. */
  readonly unknown_script?: readonly string[];
}

export type ImageResult =
  | { readonly ok: true; readonly embedding: Float32Array<ArrayBuffer>; readonly embeddingId: string | undefined }
  | { readonly ok: false; readonly error: Error };

function wrong(what: string): never {
  throw new ClipProtocolError(`The server's answer has no usable ${what}. Is this a clipsrv server?`);
}

function vector(value: unknown, dimensions: unknown): Float32Array<ArrayBuffer> {
  if (typeof value !== 'string' || typeof dimensions !== 'number') wrong('"embedding"');
  try {
    return decodeVector(value, dimensions);
  } catch (error) {
    throw new ClipProtocolError(`The server's answer is damaged: ${(error as Error).message}.`, { cause: error });
  }
}

export function readVector(reply: Reply): Float32Array<ArrayBuffer> {
  if (!isRecord(reply.json)) wrong('body');
  return vector(reply.json['embedding'], reply.json['dimensions']);
}

export function readVectors(reply: Reply, expected: number): Float32Array<ArrayBuffer>[] {
  if (!isRecord(reply.json)) wrong('body');
  const { embeddings, dimensions } = reply.json;
  if (!Array.isArray(embeddings) || embeddings.length !== expected) wrong(`"embeddings" (${expected} were due)`);
  return embeddings.map((embedding: unknown) => vector(embedding, dimensions));
}

/** The answer to `on_error=null`: a vector, or `null` and its reason under "errors". */
export function readResults(reply: Reply, expected: number): ImageResult[] {
  if (!isRecord(reply.json)) wrong('body');
  const { embeddings, dimensions } = reply.json;
  if (!Array.isArray(embeddings) || embeddings.length !== expected) wrong(`"embeddings" (${expected} were due)`);
  const errors = readImageErrors(reply.json['errors']);
  return embeddings.map((embedding: unknown, index) => {
    if (embedding !== null) return { ok: true, embedding: vector(embedding, dimensions), embeddingId: reply.embeddingId };
    const { code, message } = errors.get(index) ?? wrong(`reason for the missing vector ${index}`);
    return { ok: false, error: serverError(message, { code, status: 422 }) };
  });
}

/** A line of a stream: one image by its place in the request, and what came of it. */
export function readStreamed(line: Line, embeddingId: string | undefined): { readonly index: number; readonly result: ImageResult } {
  const { index, embedding } = line;
  if (typeof index !== 'number') wrong('"index" in a line');
  if (embedding === undefined) return { index, result: { ok: false, error: lineError(line) ?? wrong(`reason for the missing vector ${index}`) } };
  const size = typeof embedding === 'string' ? Math.floor(Buffer.byteLength(embedding, 'base64') / Float32Array.BYTES_PER_ELEMENT) : 0;
  return { index, result: { ok: true, embedding: vector(embedding, size), embeddingId } };
}

/** The last line of a stream: undefined if all images were told of, else why not. */
export function readLast(line: Line): ClipServerError | undefined {
  if (line['done'] === true) return undefined;
  return lineError(line) ?? wrong('reason in its last line');
}

function lineError(line: Line): ClipServerError | undefined {
  if (!isRecord(line['error'])) return undefined;
  const { code, message, status, details } = line['error'];
  if (typeof code !== 'string' || typeof message !== 'string' || typeof status !== 'number') return undefined;
  const requestId = line['request_id'];
  return serverError(message, {
    code,
    status,
    details: isRecord(details) ? details : {},
    requestId: typeof requestId === 'string' ? requestId : undefined,
  });
}

function readImageErrors(value: unknown): Map<number, { readonly code: string; readonly message: string }> {
  const errors = new Map<number, { code: string; message: string }>();
  for (const entry of Array.isArray(value) ? value : []) {
    if (!isRecord(entry)) continue;
    const { index, code, message } = entry;
    if (typeof index === 'number' && typeof code === 'string' && typeof message === 'string') {
      errors.set(index, { code, message });
    }
  }
  return errors;
}

export function readClassification(reply: Reply, expected: number): Classification {
  const { json } = reply;
  if (!isRecord(json) || !Array.isArray(json['labels']) || json['labels'].length !== expected) wrong(`"labels" (${expected} were due)`);
  const whole = json['labels'].every(
    (one: unknown) =>
      isRecord(one) && typeof one['label'] === 'string' && typeof one['score'] === 'number' && typeof one['similarity'] === 'number',
  );
  if (!whole || typeof json['scoring'] !== 'string') wrong('"labels"');
  return json as unknown as Classification;
}

export function readHealth(reply: Reply): Health {
  if (!isRecord(reply.json) || typeof reply.json['status'] !== 'string') wrong('"status"');
  return reply.json as unknown as Health;
}

export function readModels(reply: Reply): Models {
  const { json } = reply;
  if (!isRecord(json) || !Array.isArray(json['models']) || typeof json['current'] !== 'string') wrong('"models"');
  return json as unknown as Models;
}
