/** An index while it is made, as a person sees it. */
import type { Database } from '../database.ts';
import { Progress } from '../progress.ts';
import { makeIndex, type Plan } from './make.ts';

export async function makeShown(database: Database, plan: Plan, signal: AbortSignal): Promise<void> {
  const progress = new Progress(`making ${plan.name}`);
  try {
    await makeIndex(database, plan, (share, phase) => progress.update(share, phase), signal);
  } finally {
    progress.close();
  }
}
