/** A yes. */
export interface Answer {
  readonly code: string;
  readonly requestId: string | null;
  readonly deviceId: string | null;
  readonly validatedAt: string | null;
  readonly ageMs: number | null;
}

export interface GateOptions {
  /** The device to ask about. Default: the calling agent's own, else the host's. */
  device?: string;
  /** Accept an answer up to this many seconds old, if the daemon's configuration allows it. */
  maxAge?: number;
  /** Seconds after which a daemon that does not answer counts as one that could not find out. Default: 10. */
  timeout?: number;
  /** The daemon's socket. Default: socketPath(), looked up at each question. */
  socket?: string;
  /**
   * A no ends the program (exit code 77 or 75, one line on stderr) instead of rejecting: for frameworks that turn an exception into a
   * message for the model.
   */
  exits?: boolean;
}

/** There is no yes: do not go on. `code` is null when the daemon gave no usable answer. */
export class NotAllowed extends Error {
  readonly code: string | null;
  readonly requestId: string | null;
  readonly deviceId: string | null;
  /** When to ask again, in seconds. */
  readonly retryAfter: number | null;
  /** That of machineid-run: 77 denied, 75 could not find out. */
  readonly exitCode: 77 | 75;
  /** Ends the program as machineid-run would: one line on stderr, the exit code. */
  exit(): never;
}

/** The answer is no: stop. */
export class Denied extends NotAllowed {}

/** No decision is available: stop for now, or ask again later. */
export class Undecided extends NotAllowed {}

/** Asks with its settings. */
export class Gate {
  constructor(options?: GateOptions);
  /** Resolves on a yes; otherwise rejects with Denied or Undecided. */
  check(): Promise<Answer>;
  /** Asks before each call of `fn`. */
  gated<This, Args extends unknown[], Result>(
    fn: (this: This, ...args: Args) => Result,
  ): (this: This, ...args: Args) => Promise<Awaited<Result>>;
}

/** Resolves when the answer is yes; otherwise rejects with Denied or Undecided. */
export function check(options?: GateOptions): Promise<Answer>;

/** Asks before each call of `fn`, which may be asynchronous. */
export function gated<This, Args extends unknown[], Result>(
  fn: (this: This, ...args: Args) => Result,
  options?: GateOptions,
): (this: This, ...args: Args) => Promise<Awaited<Result>>;

/** The daemon's socket: MACHINEID_SOCKET (machineid-run sets it), else the system's, else this user's. */
export function socketPath(): string;
