/** Conditions on columns as they are typed, as TABLE_search takes them. */
import { RefusedError } from '../errors.ts';

/** By column: one of these values, or compared with them. */
export type Filters = Readonly<Record<string, readonly string[] | Readonly<Record<string, string>>>>;

/** `column=value`, or with <, <=, >, >=, !=; a column named twice with = may have either value. Throws RefusedError. */
export function filtersOf(conditions: readonly string[]): Filters {
  const values = new Map<string, string[]>();
  const compared = new Map<string, Record<string, string>>();
  for (const condition of conditions) {
    const [, column = '', operator = '', value = ''] = /^([^=<>!]+)(<=|>=|<>|!=|=|<|>)(.*)$/s.exec(condition) ?? [];
    if (column.trim() === '') throw new RefusedError(`--where must be column=value, or with <, <=, >, >= or !=, not ${condition}.`);
    const name = column.trim();
    if (operator === '=') values.set(name, [...(values.get(name) ?? []), value]);
    else compared.set(name, { ...compared.get(name), [operator === '!=' ? '<>' : operator]: value });
    if (values.has(name) && compared.has(name)) throw new RefusedError(`--where: ${name} cannot be told by = and compared at once.`);
  }
  return Object.fromEntries([...values, ...compared]);
}
