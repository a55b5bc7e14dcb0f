/** The entry: arguments to a command, errors to one line and an exit status, Ctrl-C to an orderly end. */
import { ClipError, ClipServerError, OverloadedError, UnavailableError } from 'clipsrv-client';
import { duplicatesCommand } from './commands/duplicates.ts';
import { embedCommand } from './commands/embed.ts';
import { indexCommand } from './commands/index.ts';
import { migrateCommand } from './commands/migrate.ts';
import { searchCommand } from './commands/search.ts';
import { watchCommand } from './commands/watch.ts';
import { isDatabaseAway } from './database.ts';
import { EntryError, RefusedError } from './errors.ts';
import { parseOptions, type Options } from './options.ts';
import { USAGE } from './usage.ts';

const REFUSED = 2;
const AWAY = 3;
const BUG = 70;
const INTERRUPTED = 130;

/** Runs one command line and returns its exit status. */
export async function main(args: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const controller = new AbortController();
  const interrupted = new Error('Interrupted: what was stored stays; run the same command to go on.');
  const stop = (): void => {
    // The second Ctrl-C is for when the first does not help.
    if (controller.signal.aborted) process.exit(INTERRUPTED);
    controller.abort(interrupted);
  };
  process.on('SIGINT', stop).on('SIGTERM', stop);
  // Who reads the output may go before the job is done; it is not done for the output.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  try {
    const options = parseOptions(args, env);
    return await run(options, controller.signal);
  } catch (error) {
    const status = controller.signal.aborted ? INTERRUPTED : statusOf(error);
    const { message, stack = message } = error instanceof Error ? error : new Error(String(error));
    process.stderr.write(`${status === BUG ? stack : message}\n`);
    return status;
  } finally {
    process.off('SIGINT', stop).off('SIGTERM', stop);
  }
}

async function run(options: Options, signal: AbortSignal): Promise<number> {
  switch (options.command) {
    case 'embed': return embedCommand(options, signal);
    case 'search': return searchCommand(options, signal);
    case 'migrate': return migrateCommand(options, signal);
    case 'duplicates': return duplicatesCommand(options, signal);
    case 'watch': return watchCommand(options, signal);
    case 'index': return indexCommand(options, signal);
    case 'help':
      process.stdout.write(USAGE);
      return 0;
  }
}

function statusOf(error: unknown): number {
  if (isDatabaseAway(error) || error instanceof UnavailableError || error instanceof OverloadedError) return AWAY;
  if (error instanceof ClipServerError || error instanceof RefusedError || error instanceof EntryError) return REFUSED;
  if (error instanceof ClipError) return AWAY;
  const isSystemError = error instanceof Error && 'code' in error && typeof error.code === 'string';
  return isSystemError ? REFUSED : BUG;
}
