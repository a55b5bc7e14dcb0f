/** Why a command ends early, and the exit status that says so. */

/** The command cannot be meant, or must not be done: exit status 2. */
export class RefusedError extends Error {
  override readonly name = 'RefusedError';
}

/** One entry of the catalogue cannot be used; the others go on. */
export class EntryError extends Error {
  override readonly name = 'EntryError';

  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}
