/** GET ?text=... or ?like=ID: the nearest images of the catalogue, best first. */
import { failed, refuse } from '../../../lib/answers.ts';
import { currentModel, literal, nearest, vectorOf, type Hit } from '../../../lib/catalogue.ts';

const TURNS = 2;

export async function GET(request: Request): Promise<Response> {
  const { searchParams } = new URL(request.url);
  const [text, like] = [searchParams.get('text')?.trim(), searchParams.get('like')];
  if (!text && !like) return refuse(400, 'Say what to look for: ?text= or ?like=');
  try {
    let hits: readonly Hit[] = [];
    // No row of the view has the model of a moment ago: after a switch both are asked again.
    for (let turn = 0; turn < TURNS && hits.length === 0; turn++) {
      const model = await currentModel();
      const vector = like ? await vectorOf(like, model) : literal(await model.client.embedText(text ?? '', { signal: request.signal }));
      if (vector !== undefined) hits = await nearest(model, vector);
    }
    return like && hits.length === 0 ? refuse(404, 'There is no such image.') : Response.json({ hits });
  } catch (error) {
    return failed(error);
  }
}
