/**
 * The platform's FormData, which also takes `append(name, buffer, { filename })` as the npm package `form-data` does.
 * The platform's own throws on a Buffer; `form-data`'s own reaches `fetch` as the text "[object FormData]".
 */
export class FormData extends globalThis.FormData {
  override append(
    name: string,
    value: string | Blob | Uint8Array,
    options?: string | { readonly filename?: string; readonly contentType?: string },
  ): void {
    if (typeof value === 'string') {
      super.append(name, value);
      return;
    }
    const { filename, contentType } = typeof options === 'object' ? options : { filename: options, contentType: undefined };
    const blob =
      value instanceof Blob
        ? value
        : new Blob([value as Uint8Array<ArrayBuffer>], { type: contentType ?? 'application/octet-stream' });
    super.append(name, blob, filename ?? 'blob');
  }
}
