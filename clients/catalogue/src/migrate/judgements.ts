/** What people meant: captions of images, or queries and the images that were clicked. Read from .jsonl, .ndjson, .csv or .tsv. */
import { RefusedError } from '../errors.ts';
import { records } from '../sources/files.ts';

export interface Judgement {
  readonly query: string;
  /** The images that are right answers: at least one. */
  readonly ids: ReadonlySet<string>;
}

/** Lines of one query are joined. Throws RefusedError for a line without query and id, and for a file without any. */
export async function readJudgements(file: string): Promise<Judgement[]> {
  const found = new Map<string, Set<string>>();
  for await (const { record, where } of records(file, ['query', 'id'])) {
    const { query } = record;
    const ids = [record['id'] ?? record['ids']].flat().map((id) => (typeof id === 'number' ? String(id) : id));
    const isUsable = typeof query === 'string' && query.trim() !== '' && ids.length > 0 && ids.every((id): id is string => typeof id === 'string' && id !== '');
    if (!isUsable) throw new RefusedError(`${where}: a line of judgements has a "query" and an "id" (or a list of "ids").`);
    const known = found.get(query) ?? new Set();
    for (const id of ids) known.add(id);
    found.set(query, known);
  }
  if (found.size === 0) throw new RefusedError(`${file} has no judgements.`);
  return [...found].map(([query, ids]) => ({ query, ids }));
}
