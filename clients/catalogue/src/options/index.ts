/** What `index` is told. */
import { RefusedError } from '../errors.ts';
import type { Texts } from '../hybrid/function.ts';
import { isKind, KINDS, type KindName } from '../indexes/kinds.ts';
import type { Values } from './flags.ts';
import { assertTable, count, type SharedOptions } from './shared.ts';

export interface IndexOptions extends SharedOptions {
  readonly command: 'index';
  readonly type: KindName;
  /** Only tell what each type would lose and save. */
  readonly measure: boolean;
  readonly sample: number | undefined;
  /** Undefined: by the number of rows. */
  readonly m: number | undefined;
  readonly efConstruction: number | undefined;
  readonly workers: number | undefined;
  readonly memory: string | undefined;
  /** Drop the other HNSW indexes of this job once the new one is there. */
  readonly replace: boolean;
  /** Undefined: those that were searched before, if any. */
  readonly texts: Texts | undefined;
  readonly json: boolean;
}

const COLUMN = /^[\p{L}_][\p{L}\p{N}_ ]*$/u;

function textsNamed({ columns, items, 'items-id': itemsId = 'id' }: Values): Texts | undefined {
  if (columns === undefined) {
    if (items !== undefined) throw new RefusedError('--items goes with --columns, which names those that are searched.');
    return undefined;
  }
  const names = columns.split(',').map((name) => name.trim());
  const odd = [...names, itemsId].find((name) => !COLUMN.test(name));
  if (odd !== undefined) throw new RefusedError(`--columns and --items-id must be plain names, not ${odd === '' ? 'empty' : odd}.`);
  if (items !== undefined) assertTable('items', items);
  return { columns: [...new Set(names)], items, itemsId };
}

export function indexOptions(shared: SharedOptions, values: Values): IndexOptions {
  const { type = 'vector', memory, replace = false, measure = false } = values;
  if (!isKind(type)) throw new RefusedError(`--type must be one of ${Object.keys(KINDS).join(', ')}, not ${type}.`);
  if (memory !== undefined && !/^\d+(kB|MB|GB)$/.test(memory)) throw new RefusedError(`--memory must be a size such as 512MB or 2GB, not ${memory}.`);
  const [m, efConstruction] = [values.m, values['ef-construction']].map((value, i) => (value === undefined ? undefined : count(i === 0 ? 'm' : 'ef-construction', value)));
  if (m !== undefined && (m < 2 || m > 100)) throw new RefusedError(`--m must be from 2 to 100, not ${m}.`);
  if (efConstruction !== undefined && (efConstruction > 1000 || efConstruction < 4)) throw new RefusedError(`--ef-construction must be from 4 to 1000, not ${efConstruction}.`);
  return {
    ...shared, command: 'index', type, memory, replace, measure, m, efConstruction, texts: textsNamed(values),
    sample: values.sample === undefined ? undefined : count('sample', values.sample),
    workers: values.workers === undefined ? undefined : count('workers', values.workers, 0),
    json: values.json ?? false,
  };
}
