/** A query as a catalogue. */
import type { Database } from '../database.ts';
import type { Entry } from './source.ts';

const PAGE = 1000;

/**
 * Pages through the query in the order of id and location as text; rows that are the same twice are one. Pages rather than one
 * cursor: a cursor dies with its connection, and would hold a transaction open for as long as the job runs.
 * `updated` is the query's column whose value differs when a row has changed.
 */
export async function* queryEntries(database: Database, query: string, updated?: string): AsyncGenerator<Entry> {
  const mark = updated === undefined ? "''" : `coalesce(q."${updated.replaceAll('"', '""')}"::text, '')`;
  const rows = `SELECT coalesce(q.id::text, '') COLLATE "C" AS id, coalesce(q.location::text, '') COLLATE "C" AS location, ${mark} AS mark
                FROM (${query.replace(/;\s*$/, '')}) AS q (id, location)`;
  const [unnamed] = await database.query<{ count: string }>(`SELECT count(*) AS count FROM (${rows}) AS r WHERE id = ''`);
  if (unnamed !== undefined && Number(unnamed.count) > 0) {
    yield { where: '--query', problem: `${unnamed.count} rows have no id` };
  }
  let last = { id: '', location: '' };
  for (;;) {
    const page = await database.query<{ id: string; location: string; mark: string }>(
      `SELECT DISTINCT ON (id, location) id, location, mark FROM (${rows}) AS r
       WHERE id <> '' AND (id, location) > ($1, $2) ORDER BY id, location, mark DESC LIMIT ${PAGE}`,
      [last.id, last.location],
    );
    for (const { mark, ...item } of page) {
      last = item;
      yield item.location === '' ? { where: `--query, id ${item.id}`, problem: 'no path or URL' } : { item, mark };
    }
    if (page.length < PAGE) return;
  }
}
