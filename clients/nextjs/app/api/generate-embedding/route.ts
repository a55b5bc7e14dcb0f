/** POST an image (multipart, field `image`): it is embedded, kept, and found by searches from then on. */
import { failed, refuse } from '../../../lib/answers.ts';
import { currentModel, put } from '../../../lib/catalogue.ts';
import { keep, kindOf, MOST_BYTES } from '../../../lib/images.ts';

export async function POST(request: Request): Promise<Response> {
  // A form is held in memory whole: what says it is too large is not read.
  if (Number(request.headers.get('content-length') ?? 0) > MOST_BYTES + 4096) return refuse(413, `At most ${MOST_BYTES} bytes.`);
  const form = await request.formData().catch(() => undefined);
  const image = form?.get('image');
  if (!(image instanceof Blob) || image.size === 0) return refuse(400, 'Send an image in the field "image" of a form.');
  if (image.size > MOST_BYTES) return refuse(413, `At most ${MOST_BYTES} bytes.`);
  const bytes = Buffer.from(await image.arrayBuffer());
  const kind = kindOf(bytes);
  if (kind === undefined) return refuse(415, 'PNG, JPEG, WebP, GIF and AVIF are shown here.');
  try {
    const model = await currentModel();
    // Embedded first: what is no image is refused by the server, and nothing of it is kept.
    const vector = await model.client.embedImage(bytes, { signal: request.signal });
    const row = await keep(bytes, kind.ending);
    await put(row, model, vector);
    return Response.json({ id: row.id, embedding: [...vector], dimensions: vector.length, model: model.name });
  } catch (error) {
    return failed(error);
  }
}
