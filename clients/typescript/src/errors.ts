/**
 * Everything that can go wrong, one class per kind of answer to it; `code` is the server's own word.
 *
 * ClipError
 * ├── ClipServerError              the server answered with an error
 * │   ├── InvalidRequestError      400 404 405 415 ...: the request is wrong; sending it again cannot help
 * │   ├── UnauthorizedError        401 403
 * │   ├── TooLargeError            413: too many images or bytes in one request
 * │   ├── ImageError               422: this image cannot be used
 * │   ├── OverloadedError          429: full; retried
 * │   ├── UnavailableError         503 and a proxy's 502: starting, stopping, out of memory; retried
 * │   ├── DeadlineError            408 504: not done in time
 * │   └── InternalServerError      500: a bug in the server
 * ├── BadImagesError               some images of a call that wanted all of them
 * ├── ClipConnectionError          no answer: refused, reset, no such host
 * ├── ClipTimeoutError             no answer within `timeoutMs`
 * └── ClipProtocolError            an answer that is not clipsrv's
 */

/** Every code a clipsrv server puts into an error body. */
export const ERROR_CODES = [
  'aspect_ratio_too_large', 'body_too_large', 'crop_outside_image', 'deadline_exceeded', 'dimensions_not_offered', 'duplicate_field', 'empty_batch', 'empty_body',
  'empty_image', 'expectation_failed', 'forbidden', 'headers_too_large', 'host_forbidden', 'image_too_complex', 'image_too_large',
  'index_unavailable', 'inference_failed', 'internal', 'invalid_base64', 'invalid_field', 'invalid_image', 'invalid_json', 'invalid_labels', 'invalid_request',
  'invalid_text',
  'length_required', 'malformed_multipart', 'method_not_allowed', 'missing_image', 'model_not_found', 'model_unavailable',
  'no_index', 'no_text_tower', 'not_acceptable',
  'not_an_image', 'not_found', 'origin_forbidden', 'original_unavailable', 'out_of_memory', 'overloaded', 'remote_url_disabled', 'request_timeout', 'shutting_down', 'starting',
  'too_many_failures', 'too_many_images', 'too_many_parts', 'too_many_texts', 'truncated_image', 'unauthorized', 'unexpected_field',
  'unknown_option', 'unsupported_content_encoding', 'unsupported_image_format', 'unsupported_media_type',
  'unsupported_part_encoding',
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

export interface ServerErrorInit {
  readonly code: string;
  readonly status: number;
  readonly details?: Readonly<Record<string, unknown>>;
  readonly requestId?: string | undefined;
  readonly retryAfterMs?: number | undefined;
}

export class ClipError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

export class ClipServerError extends ClipError {
  readonly code: ErrorCode | (string & {});
  readonly status: number;
  readonly details: Readonly<Record<string, unknown>>;
  readonly requestId: string | undefined;
  /** What the server's `Retry-After` asks for, in milliseconds. */
  readonly retryAfterMs: number | undefined;

  constructor(message: string, init: ServerErrorInit) {
    super(message);
    this.code = init.code;
    this.status = init.status;
    this.details = init.details ?? {};
    this.requestId = init.requestId;
    this.retryAfterMs = init.retryAfterMs;
  }
}

export class InvalidRequestError extends ClipServerError {}
export class UnauthorizedError extends ClipServerError {}
export class TooLargeError extends ClipServerError {}
export class ImageError extends ClipServerError {}
export class OverloadedError extends ClipServerError {}
export class UnavailableError extends ClipServerError {}
export class DeadlineError extends ClipServerError {}
export class InternalServerError extends ClipServerError {}

/** Some images of one call cannot be used; `failures` names each by its place in the call. */
export class BadImagesError extends ClipError {
  readonly failures: readonly { readonly index: number; readonly error: Error }[];

  constructor(failures: readonly { readonly index: number; readonly error: Error }[]) {
    const named = failures.slice(0, 5).map(({ index, error }) => `image ${index}: ${error.message}`);
    const more = failures.length > named.length ? `; and ${failures.length - named.length} more` : '';
    super(`${failures.length} of the images cannot be used. ${named.join('; ')}${more}`);
    this.failures = failures;
  }
}

export class ClipConnectionError extends ClipError {
  /** The system's word for it, for example `ECONNREFUSED`. */
  readonly code: string;

  constructor(message: string, code: string, cause: unknown) {
    super(message, { cause });
    this.code = code;
  }
}

export class ClipTimeoutError extends ClipError {
  readonly code = 'timeout';
}

export class ClipProtocolError extends ClipError {
  readonly code = 'protocol';
}

const CLASS_OF_STATUS: Readonly<Record<number, typeof ClipServerError>> = {
  401: UnauthorizedError,
  403: UnauthorizedError,
  408: DeadlineError,
  413: TooLargeError,
  422: ImageError,
  429: OverloadedError,
  500: InternalServerError,
  502: UnavailableError,
  503: UnavailableError,
  504: DeadlineError,
};

/** The error object for a status; unknown statuses fall back on their hundred. */
export function serverError(message: string, init: ServerErrorInit): ClipServerError {
  const Class = CLASS_OF_STATUS[init.status] ?? (init.status >= 500 ? InternalServerError : InvalidRequestError);
  return new Class(message, init);
}
