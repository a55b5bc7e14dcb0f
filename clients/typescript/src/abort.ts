/** Passing an abort on: from a signal someone else owns to a controller of our own. */
import { getMaxListeners, setMaxListeners } from 'node:events';

const NODE_DEFAULT = 10;
const MANY = 1000;

/**
 * Aborts `controller` with `signal`'s reason; the function returned lets go of the signal again. One signal may stand over
 * hundreds of requests, so Node's warning at eleven listeners is lifted. (AbortSignal.any would do the linking, but on Node 20
 * its followers stay attached to a long-lived signal.)
 */
export function followAbort(signal: AbortSignal | undefined, controller: AbortController): () => void {
  if (signal === undefined) return () => undefined;
  if (getMaxListeners(signal) === NODE_DEFAULT) setMaxListeners(MANY, signal);
  const onAbort = (): void => controller.abort(signal.reason);
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort, { once: true });
  return () => signal.removeEventListener('abort', onAbort);
}
