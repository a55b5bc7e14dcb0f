/** Errors as answers: one line for people, and a status that says whose fault it is. */
import { ClipConnectionError, ClipServerError } from 'clipsrv-client';

export function refuse(status: number, error: string): Response {
  return Response.json({ error }, { status });
}

/** What the embedding server says of the request goes to the caller with its status; what is wrong behind us is 503. */
export function failed(error: unknown): Response {
  if (error instanceof ClipServerError && error.status < 500 && error.status !== 401) return refuse(error.status, error.message);
  const message = error instanceof Error ? error.message : String(error);
  console.error(error);
  return refuse(503, error instanceof ClipConnectionError ? 'The embedding server is away: scripts/serve' : message || 'The database is away.');
}
