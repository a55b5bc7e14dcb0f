/** One exchange whose body and answer go on at the same time: a form sent part by part, an answer read line by line. */
import { randomUUID } from 'node:crypto';
import { followAbort } from './abort.js';
import { ClipError, ClipProtocolError, ClipTimeoutError } from './errors.js';
import { connectionError, isRecord, readReply, requestInit, type Call, type TransportOptions } from './transport.js';

const NDJSON = 'application/x-ndjson';
const LOOK_MS = 1000;

export type Line = Readonly<Record<string, unknown>>;

export interface LinesCall {
  readonly path: string;
  /** The name of each part, and their bytes, which may come at any time. Ended when the answer is over. */
  readonly field: string;
  readonly parts: AsyncGenerator<Uint8Array>;
  /** Whether the server owes a line: then it has `timeoutMs` from the last line, or the last part taken, to the next. */
  readonly waiting: () => boolean;
  readonly onLine: (line: Line, embeddingId: string | undefined) => void;
}

/** Resolves when the answer has ended, whatever its last line says. Throws as Transport.exchange. */
export async function exchangeLines(options: TransportOptions, call: LinesCall, signal: AbortSignal): Promise<void> {
  const { baseUrl, timeoutMs } = options;
  const controller = new AbortController();
  const letGo = followAbort(signal, controller);
  let since = performance.now();
  const look = (): void => {
    if (!call.waiting()) since = performance.now();
    if (performance.now() - since <= timeoutMs) return;
    controller.abort(new ClipTimeoutError(`${baseUrl} has not told of an image for ${timeoutMs} ms.`));
  };
  const timer = setInterval(look, Math.min(LOOK_MS, timeoutMs));
  const alive = (): void => void (since = performance.now());
  const { body, contentType } = streamedForm(call.field, call.parts, alive);
  try {
    const sent: Call = { method: 'POST', path: call.path, contentType };
    const init = { ...requestInit(options, sent, controller.signal, NDJSON), body, duplex: 'half' as const };
    const response = await options.fetch(baseUrl + call.path, init);
    const kind = response.headers.get('content-type') ?? '';
    if (!response.ok || response.body === null || !kind.startsWith(NDJSON)) {
      readReply(sent, response, await response.text());
      throw new ClipProtocolError(`${call.path} answered with ${kind} in the place of lines.`);
    }
    const embeddingId = response.headers.get('x-embedding-id') ?? undefined;
    for await (const line of readLines(response.body.getReader(), controller.signal)) {
      alive();
      call.onLine(line, embeddingId);
    }
    controller.signal.throwIfAborted();
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw error instanceof ClipError ? error : connectionError(baseUrl, error);
  } finally {
    clearInterval(timer);
    letGo();
    controller.abort(); // a body that is still being sent
  }
}

/** A form whose parts are sent as they come, each in one piece; `taken` is called for every one. */
function streamedForm(
  field: string,
  parts: AsyncGenerator<Uint8Array>,
  taken: () => void,
): { readonly body: ReadableStream<Uint8Array>; readonly contentType: string } {
  const boundary = `clipsrv-${randomUUID()}`;
  const head = Buffer.from(
    `\r\nContent-Disposition: form-data; name="${field}"; filename="image"\r\nContent-Type: application/octet-stream\r\n\r\n`,
  );
  let before = [Buffer.from(`--${boundary}`)];
  const after = Buffer.from(`\r\n--${boundary}`);
  const pull = async (controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> => {
    const { done, value } = await parts.next();
    controller.enqueue(Buffer.concat(done ? [...before, Buffer.from('--\r\n')] : [...before, head, value, after]));
    before = [];
    taken();
    if (done) controller.close();
  };
  const cancel = async (): Promise<void> => void (await parts.return(undefined));
  return {
    body: new ReadableStream({ pull, cancel }, { highWaterMark: 0 }),
    contentType: `multipart/form-data; boundary=${boundary}`,
  };
}

async function* readLines(body: ReadableStreamDefaultReader<Uint8Array>, signal: AbortSignal): AsyncGenerator<Line> {
  const decoder = new TextDecoder();
  let pieces: string[] = [];
  // Node's fetch ends no answer by an abort that comes when the body was already sent.
  const cancel = (): void => void body.cancel().catch(() => undefined);
  signal.addEventListener('abort', cancel, { once: true });
  for (let chunk = await body.read(); !chunk.done; chunk = await body.read()) {
    const [first = '', ...rest] = decoder.decode(chunk.value, { stream: true }).split('\n');
    pieces.push(first);
    for (const next of rest) {
      yield parseLine(pieces.join(''));
      pieces = [next];
    }
  }
  const last = pieces.join('') + decoder.decode();
  if (last !== '' && !signal.aborted) yield parseLine(last);
}

function parseLine(text: string): Line {
  try {
    const value: unknown = JSON.parse(text);
    if (isRecord(value)) return value;
  } catch {
    // told below
  }
  throw new ClipProtocolError('The answer has a line that is not a JSON object.');
}
