/**
 * Many small images through the real job into a real PostgreSQL, with Node's resident memory over time.
 *
 *   npx tsx clients/catalogue/bench/many-images.ts [IMAGES=20000]
 *
 * Starts the server (CLIPSRV_TEST_PYTHON, CLIPSRV_TEST_MODEL) and the database itself, and prints one line of figures.
 */
import { readFileSync } from 'node:fs';
import { Workshop } from '../test/support/workshop.ts';

const SAMPLE_MS = 250;

const images = Number(process.argv[2] ?? 20_000);
const shop = await Workshop.open();
try {
  const folder = shop.images('many', images);
  const job = shop.launch(folder, '--table', 'many', '--create', '--index');
  const samples: number[] = [];
  const sample = (): void => {
    const status = readFileSync(`/proc/${job.child.pid}/status`, 'utf8');
    const kilobytes = /VmRSS:\s+(\d+) kB/.exec(status)?.[1];
    if (kilobytes !== undefined) samples.push(Math.round(Number(kilobytes) / 1024));
  };
  const timer = setInterval(sample, SAMPLE_MS);
  const start = performance.now();
  job.child.once('exit', () => clearInterval(timer));
  const { status, stdout, stderr } = await job.outcome;
  const seconds = (performance.now() - start) / 1000;
  const at = (part: number): number => samples[Math.floor((samples.length - 1) * part)] ?? 0;
  process.stdout.write(stdout);
  process.stderr.write(stderr);
  console.log(
    `status ${status}, ${await shop.count('many')} rows for ${images} images in ${seconds.toFixed(1)} s (${(images / seconds).toFixed(0)}/s); ` +
      `RSS of Node in MB: ${at(0.1)} at a tenth, ${at(0.25)}, ${at(0.5)} in the middle, ${at(0.75)}, ${at(1)} at the end, ${Math.max(...samples)} at most`,
  );
} finally {
  await shop.close();
}
