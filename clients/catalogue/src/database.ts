/** A PostgreSQL connection that survives the database going away for a while. Knows no table. */
import { followAbort, sleep, withRetry, type RetryNotice } from 'clipsrv-client';
import pg from 'pg';

export interface DatabaseOptions {
  readonly url: string;
  /** How long one statement is repeated while the database is away. */
  readonly patienceMs: number;
  readonly signal?: AbortSignal;
  readonly onRetry?: (notice: RetryNotice) => void;
}

const TRANSIENT_SYSTEM_CODES = new Set(['EAI_AGAIN', 'ECONNREFUSED', 'ECONNRESET', 'ENOENT', 'EPIPE', 'ETIMEDOUT']);
/** Connection exceptions, too many connections, shutdown and start-up, serialization failures (PostgreSQL, appendix A). */
const TRANSIENT_SQLSTATE = /^(08...|53300|57P0[123]|40001|40P01)$/;
/** What node-postgres says, without a code, when a connection ends or hangs. */
const TRANSIENT_MESSAGE = /^(Connection terminated|Client has encountered a connection error|timeout exceeded when trying|Query read timeout)/;

/** True when the same statement may succeed later without anything being changed. */
export function isDatabaseAway(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  return TRANSIENT_SYSTEM_CODES.has(code) || TRANSIENT_SQLSTATE.test(code) || TRANSIENT_MESSAGE.test(error.message);
}

export class Database {
  readonly #pool: pg.Pool;
  readonly #options: DatabaseOptions;

  constructor(options: DatabaseOptions) {
    this.#options = options;
    this.#pool = new pg.Pool({
      connectionString: options.url,
      max: 4,
      connectionTimeoutMillis: 10_000,
      keepAlive: true,
      application_name: 'clipsrv-catalogue',
    });
    // An idle connection that dies raises this; the pool has dropped it, and the next statement opens another.
    this.#pool.on('error', () => undefined);
  }

  /** Runs one statement, which is one transaction; repeats it while the database is away, so it must be idempotent. */
  async query<Row extends pg.QueryResultRow>(text: string, values: readonly unknown[] = []): Promise<Row[]> {
    return this.#patiently(async () => {
      const timeout = { query_timeout: STATEMENT_TIMEOUT_MS } as object;
      return (await this.#pool.query<Row>({ text, values: [...values], ...timeout })).rows;
    });
  }

  /** Runs statements in one transaction, without a time limit: for session settings. */
  async transaction<T>(statements: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    return this.#patiently(() => this.#lent(async (client) => {
      await client.query('BEGIN');
      const result = await statements(client);
      await client.query('COMMIT');
      return result;
    }));
  }

  /**
   * Runs statements on a connection of their own, each its own transaction, without a time limit: for what no transaction can hold. What
   * they set ends with it. `pid` is its process in the database. They are run again if the database went away, so they must be idempotent.
   */
  async session<T>(statements: (client: pg.PoolClient, pid: number) => Promise<T>): Promise<T> {
    return this.#patiently(() => this.#lent(async (client) => {
      const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
      return statements(client, rows[0]?.pid ?? 0);
    }, true));
  }

  /** Ends the statement that the process `pid` is at, also after the signal. */
  async cancel(pid: number): Promise<void> {
    await this.#pool.query('SELECT pg_cancel_backend($1)', [pid]);
  }

  /**
   * Yields at once, after each notification on `channel`, and every `everyMs` in any case, for notifications are lost with a connection.
   * What arrives while the caller is at work is one more turn. Ends by the signal's reason.
   */
  async *wakes(channel: string, everyMs: number): AsyncGenerator<void> {
    const { signal, url } = this.#options;
    let listener: pg.Client | undefined;
    let ring = (): void => undefined;
    const listen = async (): Promise<pg.Client> => {
      const client = new pg.Client({ connectionString: url, keepAlive: true, application_name: 'clipsrv-catalogue' });
      client.on('notification', () => ring()).on('error', () => {
        listener = undefined;
        ring();
      });
      await client.connect();
      await client.query(`LISTEN "${channel}"`);
      return client;
    };
    try {
      for (;;) {
        const rung = new Promise<void>((resolve) => (ring = resolve));
        listener ??= await listen().catch(() => undefined);
        yield;
        const timer = new AbortController();
        const letGo = followAbort(signal, timer);
        await Promise.race([rung, sleep(everyMs, timer.signal)]).finally(letGo);
        timer.abort();
        signal?.throwIfAborted();
      }
    } finally {
      await listener?.end();
    }
  }

  async close(): Promise<void> {
    // A query of an aborted job may hang on a dead connection; ending the process must not wait for it.
    const timer = new AbortController();
    await Promise.race([this.#pool.end(), sleep(PARTING_MS, timer.signal)]);
    // A timer left running keeps the process from ending.
    timer.abort();
  }

  /** Closing the connection, after a failure or when it is `spent`, also ends its transaction and its settings. */
  async #lent<T>(use: (client: pg.PoolClient) => Promise<T>, spent = false): Promise<T> {
    const client = await this.#pool.connect();
    let failure: Error | undefined;
    try {
      return await use(client);
    } catch (error) {
      failure = error as Error;
      throw error;
    } finally {
      client.release(failure ?? spent);
    }
  }

  #patiently<T>(send: () => Promise<T>): Promise<T> {
    const { patienceMs, signal, onRetry } = this.#options;
    const policy = { maxAttempts: Number.POSITIVE_INFINITY, baseDelayMs: 250, maxDelayMs: 5000, maxElapsedMs: patienceMs };
    return withRetry(send, { policy, signal, onRetry, worthRetrying: isDatabaseAway });
  }
}

const STATEMENT_TIMEOUT_MS = 120_000;
const PARTING_MS = 2000;
