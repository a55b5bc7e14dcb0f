/** A server that answers by a script, for the faults a real one cannot be asked to have on cue. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Received {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
  /** Parts named "image" or "images". */
  readonly images: number;
  readonly at: number;
}

export type Step = (request: Received, response: ServerResponse) => void;

export interface ScriptedServer {
  readonly url: string;
  readonly received: Received[];
  /** Requests being answered right now at most, over the server's life. */
  readonly peak: () => number;
  close(): Promise<void>;
}

/** Answers the n-th request with the n-th step; the last step answers all further ones. */
export async function scriptedServer(...steps: [Step, ...Step[]]): Promise<ScriptedServer> {
  const received: Received[] = [];
  let running = 0;
  let peak = 0;
  const server = createServer((request, response) => {
    const at = performance.now();
    const chunks: Buffer[] = [];
    peak = Math.max(peak, ++running);
    response.on('close', () => running--);
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('error', () => undefined);
    request.on('end', () => {
      const body = Buffer.concat(chunks).toString('latin1');
      const images = body.match(/form-data; name="images?"/g)?.length ?? 0;
      const { method = '', url = '', headers } = request;
      const record = { method, url, headers, body, images, at };
      received.push(record);
      (steps[received.length - 1] ?? steps.at(-1) ?? steps[0])(record, response);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    received,
    peak: () => peak,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

export const json =
  (status: number, body: unknown, headers: Record<string, string> = {}): Step =>
  (_request, response) => {
    response.writeHead(status, { 'Content-Type': 'application/json', ...headers });
    response.end(JSON.stringify(body));
  };

export const failure = (status: number, code: string, headers: Record<string, string> = {}): Step =>
  json(status, { error: { code, message: `scripted ${code}`, details: { told: true } }, request_id: 'r-1' }, headers);

export const reset: Step = (_request, response) => {
  response.socket?.resetAndDestroy();
};

export const silence: Step = () => undefined;

export const base64 = (values: readonly number[]): string => Buffer.from(new Float32Array(values).buffer).toString('base64');

/** Every image gets the vector (its place in the request, 0.5). */
export const embed: Step = (request, response) => {
  const vectors = Array.from({ length: request.images }, (_, i) => base64([i, 0.5]));
  const one = request.url.startsWith('/embed?');
  const body = one ? { embedding: vectors[0] } : { embeddings: vectors, count: vectors.length };
  json(200, { ...body, dimensions: 2, model: 'scripted' }, { 'X-Embedding-Id': 'scripted-1' })(request, response);
};

export const after =
  (ms: number, step: Step): Step =>
  (request, response) =>
    void setTimeout(() => step(request, response), ms);
