/** GET ?id=...: an image of the catalogue, and of nothing else that lies in its folder. */
import { failed, refuse } from '../../../lib/answers.ts';
import { locationOf } from '../../../lib/catalogue.ts';
import { kindOf, read } from '../../../lib/images.ts';

export async function GET(request: Request): Promise<Response> {
  const id = new URL(request.url).searchParams.get('id') ?? '';
  try {
    const location = await locationOf(id);
    const bytes = location === undefined ? undefined : await read(location);
    const kind = bytes === undefined ? undefined : kindOf(bytes);
    if (bytes === undefined || kind === undefined) return refuse(404, 'There is no such image.');
    // Whatever the bytes are, they are an image to the browser and never a page.
    const headers = { 'Content-Type': kind.type, 'X-Content-Type-Options': 'nosniff', 'Content-Security-Policy': "default-src 'none'", 'Cache-Control': 'no-cache' };
    return new Response(new Uint8Array(bytes), { headers });
  } catch (error) {
    return failed(error);
  }
}
