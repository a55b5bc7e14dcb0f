import path from 'node:path';
import type { NextConfig } from 'next';

const config: NextConfig = {
  // The client is the one of this repository; as it is, without a bundle.
  serverExternalPackages: ['clipsrv-client', 'pg'],
  turbopack: { root: path.resolve(import.meta.dirname, '../..') },
};

export default config;
