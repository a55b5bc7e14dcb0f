/** The catalogue as this application asks it: the model that counts, the nearest images, a row more. Two names and a function of the
 * catalogue job are all it knows of the tables, so a move to another model goes on behind it. */
import { ClipClient } from 'clipsrv-client';
import pg from 'pg';

export interface Hit {
  readonly id: string;
  /** Where the browser finds the image. */
  readonly src: string;
  /** Cosine: 1 is the same direction. */
  readonly similarity: number;
}

export interface Model {
  readonly name: string;
  readonly embeddingId: string;
  /** Whose vectors are of this model. */
  readonly client: ClipClient;
}

// `next dev` reads this module again at every change; the connections are to stay.
const kept = globalThis as typeof globalThis & { catalogue?: pg.Pool };

function pool(): pg.Pool {
  kept.catalogue ??= new pg.Pool({ connectionString: process.env['DATABASE_URL'] ?? 'postgresql://catalogue:secret@localhost:5432/catalogue', max: 8 }).on('error', () => undefined);
  return kept.catalogue;
}

/** Ends all connections; the next question opens new ones. */
export async function disconnect(): Promise<void> {
  const open = kept.catalogue;
  delete kept.catalogue;
  await open?.end();
}

/** Throws an Error with what to do if there is no catalogue yet. */
export async function currentModel(): Promise<Model> {
  const { rows } = await pool()
    .query<{ model: string; embedding_id: string }>('SELECT model, embedding_id FROM image_embeddings_models WHERE is_current')
    .catch((error: Error & { code?: string }) => {
      if (error.code !== '42P01') throw error; // undefined_table
      return { rows: [] };
    });
  const [row] = rows;
  if (row === undefined) throw new Error('There is no catalogue yet: npm run catalogue -- photos --create --index');
  return { name: row.model, embeddingId: row.embedding_id, client: new ClipClient({ model: row.model, retry: { maxElapsedMs: 10_000 } }) };
}

/** As pgvector writes it. */
export const literal = (vector: Float32Array): string => `[${vector.join(',')}]`;

/** The vector of an image of the catalogue, as pgvector writes it; undefined for an id that has none of this model. */
export async function vectorOf(id: string, model: Model): Promise<string | undefined> {
  const { rows } = await pool().query<{ vector: string }>('SELECT embedding::text AS vector FROM image_embeddings_current WHERE id = $1 AND embedding_id = $2', [id, model.embeddingId]);
  return rows[0]?.vector;
}

export async function nearest(model: Model, vector: string, limit = 12): Promise<readonly Hit[]> {
  const { rows } = await pool().query<{ id: string; location: string; similarity: number }>(
    `SELECT id, location, 1 - (embedding <=> $1::vector) AS similarity FROM image_embeddings_current
     WHERE embedding_id = $2 ORDER BY embedding <=> $1::vector LIMIT $3`,
    [vector, model.embeddingId, limit],
  );
  return rows.map(({ id, location, similarity }) => ({ id, src: sourceOf(id, location), similarity }));
}

/** The location of an image of the catalogue; undefined for another id. */
export async function locationOf(id: string): Promise<string | undefined> {
  const { rows } = await pool().query<{ location: string }>('SELECT location FROM image_embeddings_current WHERE id = $1', [id]);
  return rows[0]?.location;
}

/** Stores a row where vectors of this model belong, or replaces it. */
export async function put(row: { id: string; location: string; sha256: string }, model: Model, vector: Float32Array): Promise<void> {
  await pool().query('SELECT image_embeddings_put($1, $2, $3, $4, $5::vector)', [row.id, row.location, row.sha256, model.embeddingId, literal(vector)]);
}

export const isUrl = (location: string): boolean => /^https?:\/\//i.test(location);

const sourceOf = (id: string, location: string): string => (isUrl(location) ? location : `/api/image?id=${encodeURIComponent(id)}`);
