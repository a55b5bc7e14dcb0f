/** What a catalogue is made of, wherever it comes from. Knows nothing of images or vectors. */

export interface CatalogueItem {
  readonly id: string;
  /** A path or URL as the catalogue has it. */
  readonly location: string;
}

/**
 * A row of the catalogue, or why it is not one. `where` is the place a person would look; `mark` is what the row says of its last change.
 */
export type Entry = { readonly item: CatalogueItem; readonly mark?: string } | { readonly where: string; readonly problem: string };

export interface Source {
  /** Relative locations are relative to this folder. */
  readonly base: string;
  /** Entries can be read again from the start with each call, always in the same order. */
  entries(): AsyncIterable<Entry>;
}

export interface Columns {
  readonly id: string;
  readonly location: string | undefined;
}

/** Where a location may stand; the first of these that is there counts. */
export const locationColumns = ({ location }: Columns): readonly string[] =>
  location === undefined ? ['path', 'url', 'location', 'image'] : [location];

const KEYS_SHOWN = 20;

/** An entry of a record of a file: its id is a text that is not empty or a whole number, as the bulk job has it. */
export function toEntry(record: Record<string, unknown>, columns: Columns, where: () => string): Entry {
  const id = asText(record[columns.id]);
  const names = locationColumns(columns);
  const location = names.map((name) => asText(record[name])).find((value) => value !== undefined);
  const keys = Object.keys(record).slice(0, KEYS_SHOWN).join(', ');
  if (id === undefined) return { where: where(), problem: wrongId(record[columns.id], columns.id) ?? `no ${columns.id}; its keys are: ${keys}` };
  if (location === undefined) return { where: where(), problem: `no ${names.join(' or ')} for ${id}; its keys are: ${keys}` };
  return { item: { id, location } };
}

// JSON.parse gives of 12345678901234567890 another number: two such ids would become one.
function asText(value: unknown): string | undefined {
  if (typeof value === 'number') return Number.isSafeInteger(value) ? String(value) : undefined;
  return typeof value === 'string' && value !== '' ? value : undefined;
}

const wrongId = (value: unknown, name: string): string | undefined =>
  value === undefined || value === null || value === '' ? undefined : `${name} must be a text or a whole number below 2^53: put it in quotes`;
