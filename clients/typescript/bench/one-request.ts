/**
 * embedStream over one request beside embedStream over many, in turns against one server that it starts itself: images a
 * second, the median of each way and of their ratio.
 *
 *   npx tsx clients/typescript/bench/one-request.ts [IMAGES=2000] [ROUNDS=5] [WIDTH=224]
 *
 * The server's interpreter and model are CLIPSRV_TEST_PYTHON and CLIPSRV_TEST_MODEL (default: demo).
 */
import { ClipClient } from 'clipsrv-client';
import { image } from '../test/support/images.ts';
import { ClipServer, MODEL } from '../test/support/server.ts';

const [images = 2000, rounds = 5, width = 224] = process.argv.slice(2).map(Number);
const median = (values: number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;

const files = Array.from({ length: 200 }, (_, seed) => image(seed, width, Math.round(0.75 * width)));
const server = await ClipServer.start('--cache-bytes', '0'); // the same files are sent again
try {
  const client = new ClipClient({ baseUrl: server.url });
  const rate = async (oneRequest: boolean): Promise<number> => {
    const start = performance.now();
    let count = 0;
    const numbers = Array.from({ length: images }, (_, i) => i);
    for await (const result of client.embedStream(numbers, (i) => files[i % files.length] ?? Buffer.alloc(0), { oneRequest })) {
      count += Number(result.ok);
    }
    if (count !== images) throw new Error(`${count} of ${images}`);
    return (1000 * images) / (performance.now() - start);
  };
  await rate(false);
  const found: { one: number; many: number }[] = [];
  for (let round = 0; round < rounds; round++) {
    // Each way first in its turn: what the machine does meanwhile is nobody's advantage.
    const first = await rate(round % 2 === 0);
    const second = await rate(round % 2 !== 0);
    found.push(round % 2 === 0 ? { one: first, many: second } : { one: second, many: first });
  }
  const of = (pick: (pair: { one: number; many: number }) => number): number => median(found.map(pick));
  console.log(
    `${MODEL}, ${images} PNGs ${width} wide, ${rounds} rounds: ${of(({ one }) => one).toFixed(0)} images/s over one request, ` +
      `${of(({ many }) => many).toFixed(0)} over many, ratio ${of(({ one, many }) => one / many).toFixed(2)} ` +
      `(${found.map(({ one, many }) => (one / many).toFixed(2)).join(', ')})`,
  );
} finally {
  await server.stop();
}
