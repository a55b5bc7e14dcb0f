/** OpenAI's own client for Node against the real server: its vectors are those of ours. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { ClipClient } from 'clipsrv-client';
import OpenAI from 'openai';
import { image } from './support/images.ts';
import { ClipServer } from './support/server.ts';

let server: ClipServer;
let ours: ClipClient;
let openai: OpenAI;

before(async () => {
  server = await ClipServer.start('--api-keys', 'a-key-of-the-test-suite');
  ours = new ClipClient({ baseUrl: server.url, apiKey: 'a-key-of-the-test-suite' });
  openai = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'a-key-of-the-test-suite', maxRetries: 0 });
});
after(() => server.stop());

const dataUri = (blob: Buffer): string => `data:image/png;base64,${blob.toString('base64')}`;

async function modelName(): Promise<string> {
  const [first] = (await openai.models.list()).data;
  assert.ok(first);
  return first.id;
}

for (const encoding of ['float', 'base64', undefined] as const) {
  test(`OpenAI's client has the vectors of texts and images mixed, encoding ${encoding ?? 'as it likes'}`, async () => {
    const input = ['a red heart', dataUri(image(1)), 'a blue circle', dataUri(image(2))];
    const options = encoding === undefined ? {} : { encoding_format: encoding };
    const answer = await openai.embeddings.create({ model: await modelName(), input, ...options });
    const [heart, circle] = await ours.embedTexts(['a red heart', 'a blue circle']);
    const [one, two] = await ours.embedImages([image(1), image(2)]);
    const wanted = [heart, one, circle, two];
    assert.equal(answer.data.length, 4);
    for (const { index, embedding } of answer.data) {
      const vector: Float32Array | undefined = wanted[index];
      const values = encoding === 'base64' ? decoded(embedding) : embedding;
      assert.ok(vector);
      assert.equal(values.length, vector.length);
      assert.ok(Math.max(...vector.map((value, i) => Math.abs(value - (values[i] ?? NaN)))) < 1e-6);
    }
    assert.ok(answer.usage.prompt_tokens > 0);
  });
}

/** What a caller who asks for base64 by name gets: the client decodes only what it asked for by itself. */
function decoded(embedding: unknown): number[] {
  assert.equal(typeof embedding, 'string');
  return [...new Float32Array(new Uint8Array(Buffer.from(embedding as string, 'base64')).buffer)];
}

test("OpenAI's client takes 2,048 texts in one request", async () => {
  const input = Array.from({ length: 2048 }, (_, number) => `${number} hearts`);
  const answer = await openai.embeddings.create({ model: await modelName(), input });
  assert.equal(answer.data.length, 2048);
  assert.equal(new Set(answer.data.map(({ embedding }) => embedding.join())).size > 1, true);
});

test("OpenAI's client raises its own errors, with what to do in their messages", async () => {
  const model = await modelName();
  const refused = async (body: object): Promise<InstanceType<typeof OpenAI.APIError>> => {
    const error = await openai.embeddings.create({ model, ...body } as OpenAI.EmbeddingCreateParams).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    assert.ok(error instanceof OpenAI.APIError, String(error));
    return error;
  };
  const unknown = await refused({ model: 'text-embedding-3-small', input: 'a' });
  assert.ok(unknown instanceof OpenAI.NotFoundError);
  assert.equal(unknown.code, 'model_not_found');
  assert.ok(unknown.message.includes(model));
  const tokens = await refused({ input: [[1, 2, 3]] });
  assert.ok(tokens instanceof OpenAI.BadRequestError);
  assert.equal(tokens.param, 'input');
  assert.match(tokens.message, /Send the texts/);
  const cut = await refused({ input: ['a', dataUri(image(1).subarray(0, 60))] });
  assert.ok(cut instanceof OpenAI.BadRequestError);
  assert.match(cut.message, /input\[1\]/);
  const size = await refused({ input: 'a', dimensions: 7 });
  assert.equal(size.code, 'dimensions_not_offered');
  const stranger = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'another', maxRetries: 0 });
  await assert.rejects(stranger.embeddings.create({ model, input: 'a' }), OpenAI.AuthenticationError);
});
