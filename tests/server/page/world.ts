/** What the tests share: servers, started when the first test asks, and images that no browser shows. */
import { after } from 'node:test';
import { ClipClient } from 'clipsrv-client';
import { ClipServer } from '../../../clients/typescript/test/support/server.ts';

export const KEY = 'a-key-that-nobody-guesses';

const started: Promise<ClipServer>[] = [];
after(async () => {
  for (const server of started) await (await server).kill();
});

function once(...flags: string[]): () => Promise<ClipServer> {
  let server: Promise<ClipServer> | undefined;
  return () => {
    if (!server) started.push((server = ClipServer.start(...flags)));
    return server;
  };
}

/** Of two models; it may be called clip.example. */
export const server = once('--models', 'other', '--allowed-hosts', 'clip.example');
/** That wants a key, and takes little at once. */
export const strict = once('--api-keys', KEY, '--max-images', '3', '--max-image-bytes', '40000', '--max-body-bytes', '100000');

/** That has an index of 260 images, of which the file of the fifth is gone. */
export const indexed = once('--index', process.env['CLIPSRV_TEST_INDEX'] ?? '');

export async function client(): Promise<ClipClient> {
  return new ClipClient({ baseUrl: (await server()).url });
}

/** A grey TIFF without compression. */
export function tiff(width: number, height: number): Buffer {
  const tags = [
    [256, width], [257, height], [258, 8], [259, 1], [262, 1], [273, 8], [277, 1], [278, height], [279, width * height],
  ];
  const pixels = Buffer.from(Array.from({ length: 2 * Math.ceil((width * height) / 2) }, (_, i) => (i * 7) & 255));
  const directory = Buffer.alloc(2 + 12 * tags.length + 4);
  directory.writeUInt16LE(tags.length, 0);
  tags.forEach(([tag = 0, value = 0], i) => {
    directory.writeUInt16LE(tag, 2 + 12 * i);
    directory.writeUInt16LE(4, 4 + 12 * i);
    directory.writeUInt32LE(1, 6 + 12 * i);
    directory.writeUInt32LE(value, 10 + 12 * i);
  });
  const header = Buffer.from([0x49, 0x49, 42, 0, 0, 0, 0, 0]);
  header.writeUInt32LE(8 + pixels.length, 4);
  return Buffer.concat([header, pixels, directory]);
}
