/**
 * The platform's FormData, which also takes `append(name, buffer, { filename })` as the npm package `form-data` does.
 * The platform's own throws on a Buffer; `form-data`'s own reaches `fetch` as the text "[object FormData]". What neither
 * can send as it is, a stream or another library's Blob, is a TypeError, never a text that says "[object Blob]".
 */
import { types } from 'node:util';
import { described } from './encoding.js';

type Value = string | Blob | ArrayBufferView | ArrayBufferLike;
type Options = string | { readonly filename?: string; readonly contentType?: string };

export class FormData extends globalThis.FormData {
  override append(name: string, value: Value, options?: Options): void {
    super.append(name, partOf(value, options));
  }

  override set(name: string, value: Value, options?: Options): void {
    super.set(name, partOf(value, options));
  }
}

function partOf(value: unknown, options: Options = {}): string | Blob {
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return String(value);
  const { filename, contentType = 'application/octet-stream' } = typeof options === 'string' ? { filename: options } : options;
  if (value instanceof Blob) return filename === undefined ? value : new File([value], filename, { type: value.type });
  if (ArrayBuffer.isView(value) || types.isAnyArrayBuffer(value)) {
    return new File([value as Uint8Array<ArrayBuffer>], filename ?? 'blob', { type: contentType });
  }
  throw new TypeError(`A form takes a string, Buffer, ArrayBuffer or Blob, not ${described(value)}: give its bytes`);
}
