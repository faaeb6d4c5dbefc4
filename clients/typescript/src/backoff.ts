/** The first wait, in milliseconds: long enough for a restarted listener, too short to notice. */
const FIRST_MS = 250;

/** The longest wait of one's own: back this soon after an outage of any length. */
const LONGEST_MS = 15_000;

/** The longest wait that a server can ask for: none may put a client to sleep for good. */
const LONGEST_ASKED_MS = 300_000;

/**
 * Waits that double, each shortened by chance to between half and all of it, so that clients
 * that lost a server together do not come back together.
 */
export class Backoff {
  #next = FIRST_MS;

  /** The wait before the next attempt, in milliseconds; at least as long as `askedMs`. */
  next(askedMs = 0): number {
    const full = this.#next;
    this.#next = Math.min(full * 2, LONGEST_MS);
    return Math.max(full * (0.5 + 0.5 * Math.random()), asked(askedMs));
  }

  /** Starts from the shortest wait again. */
  reset(): void {
    this.#next = FIRST_MS;
  }
}

/** What a server asks for, as far as that goes. */
export function asked(ms: number): number {
  return Math.min(ms, LONGEST_ASKED_MS);
}

/** Waits so long, or until the signal is aborted. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done);
  });
}
