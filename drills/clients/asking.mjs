// What clients for Node get from the server, run where they are installed: node asking.mjs JOB.json > results. As asking.py.
import { readFileSync } from 'node:fs';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { OpenAIEmbeddings } from '@langchain/openai';
import { embedMany } from 'ai';
import OpenAI from 'openai';

const TOLERANCE = 1e-6;
const KEY = 'no-key-is-needed';
const job = JSON.parse(readFileSync(process.argv[2], 'utf8'));

const same = (ask) => ({ texts: ask, images: ask, mixed: ask, many: ask, unknown: ask });
const CLIENTS = [
  [
    'openai',
    'openai',
    same(async (input, model = job.model) => {
      const client = new OpenAI({ baseURL: job.v1, apiKey: KEY, maxRetries: 0 });
      return (await client.embeddings.create({ model, input })).data.map((row) => row.embedding);
    }),
  ],
  [
    '@langchain/openai',
    '@langchain/openai',
    same((texts, model = job.model) =>
      new OpenAIEmbeddings({
        model,
        apiKey: KEY,
        batchSize: 2048,
        stripNewLines: false,
        maxRetries: 0,
        configuration: { baseURL: job.v1 },
      }).embedDocuments(texts),
    ),
  ],
  [
    'AI SDK',
    '@ai-sdk/openai-compatible',
    same(async (values, name = job.model) => {
      const provider = createOpenAICompatible({ name: 'clipsrv', baseURL: job.v1, apiKey: KEY });
      return (await embedMany({ model: provider.textEmbeddingModel(name), values, maxRetries: 0 })).embeddings;
    }),
  ],
];

async function tried(name, ask) {
  if (name === 'unknown') {
    const error = await ask(['a'], 'another-model').then(
      () => undefined,
      (reason) => reason,
    );
    if (error === undefined) return 'a model that is not served gave vectors';
    return String(error).includes('there are:') ? 'yes' : String(error);
  }
  const [items, wanted] = job.cases[name];
  let found;
  try {
    found = await ask(items);
  } catch (error) {
    return String(error);
  }
  if (found.length !== wanted.length) return `${found.length} vectors`;
  const difference = Math.max(...wanted.map((row, i) => Math.max(...row.map((value, j) => Math.abs(value - (found[i][j] ?? NaN))))));
  return difference < TOLERANCE ? 'yes' : `off by ${difference}`;
}

for (const [client, name, cases] of CLIENTS) {
  const { version } = JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url), 'utf8'));
  const results = {};
  for (const [key, ask] of Object.entries(cases)) results[key] = await tried(key, ask);
  console.log(JSON.stringify({ client: `${client} (Node)`, version, results }));
}
