/** How long a thousand images keep the page: the longest pieces of work of its one thread, in CPU time, which no busy machine makes longer. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { image } from '../../../clients/typescript/test/support/images.ts';
import { Visit } from './browser.ts';
import { server } from './world.ts';

interface Event {
  name: string;
  ph: string;
  pid: number;
  tid: number;
  tdur?: number;
  args: { name?: string };
}

test('a thousand images', async (context) => {
  const visit = await Visit.begin((await server()).url);
  const browser = visit.page.context().browser();
  const measured = async (what: string, work: () => Promise<void>): Promise<void> => {
    await browser?.startTracing(visit.page, { categories: ['toplevel', 'devtools.timeline'] });
    await work();
    const { traceEvents } = JSON.parse(String(await browser?.stopTracing())) as { traceEvents: Event[] };
    const of = ({ pid, tid }: Event): string => `${pid}:${tid}`;
    const main = new Set(traceEvents.filter(({ name, args }) => name === 'thread_name' && args.name === 'CrRendererMain').map(of));
    const tasks = traceEvents.filter((event) => event.ph === 'X' && event.name.endsWith('RunTask') && main.has(of(event)));
    const longest = tasks.map(({ tdur = 0 }) => Math.round(tdur / 1000)).sort((a, b) => b - a);
    context.diagnostic(`${what}: ${longest.slice(0, 3).join(', ')} ms`);
  };
  const folder = await mkdtemp(path.join(tmpdir(), 'clipsrv-page-'));
  const images = Array.from({ length: 1000 }, (_, seed) => path.join(folder, `${seed}.png`));
  await Promise.all(images.map((name, seed) => writeFile(name, image(seed, 320, 240))));
  await measured('drop and embed', async () => {
    await visit.choose(images);
    await visit.embedded(1000);
  });
  await measured('search', async () => {
    for (const text of ['a dog', 'a cat', 'a house']) {
      await visit.page.fill('#search', text);
      await visit.ranking(text);
    }
  });
  await measured('scroll to the end', async () => {
    await visit.until(() => {
      scrollBy({ top: 700, behavior: 'instant' });
      return document.querySelectorAll('#grid li').length === 1000;
    }, null);
  });
  await visit.end();
  await rm(folder, { recursive: true });
});
