/** What this job and the bulk job (`python -m clipsrv embed`) must agree on, from the one file that both packages carry. */
import { existsSync, readFileSync } from 'node:fs';

interface Contract {
  readonly image_suffixes: readonly string[];
  readonly columns: Readonly<Record<string, string>>;
  readonly lock: string;
}

// In the repository the file is the bulk job's own; `npm pack` puts a copy of it into this package.
const places = ['../../../clipsrv/bulk/contract.json', '../contract.json'].map((place) => new URL(place, import.meta.url));
const contract = JSON.parse(readFileSync(places.find((place) => existsSync(place)) ?? '', 'utf8')) as Contract;

/** Of the files in a folder only these are taken. */
export const IMAGE_SUFFIXES: ReadonlySet<string> = new Set(contract.image_suffixes);
/** The table's columns in order, each with its definition; {dimensions} stands for the length of a vector. */
export const COLUMNS = contract.columns;
/** Hashed, the advisory lock under which extension and table are made. */
export const LOCK = contract.lock;
