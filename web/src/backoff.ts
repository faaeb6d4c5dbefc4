/** The first wait: long enough for a restarted listener, too short to be noticed. */
const FIRST_MS = 250;

/** The longest wait: the page is back this soon after an outage of any length. */
const LONGEST_MS = 15_000;

/**
 * Waits that double, each shortened by chance to between half and all of it, so that pages
 * that lost a server together do not come back together.
 */
export class Backoff {
  #next = FIRST_MS;

  next(): number {
    const full = this.#next;
    this.#next = Math.min(full * 2, LONGEST_MS);
    return full * (0.5 + 0.5 * Math.random());
  }

  reset(): void {
    this.#next = FIRST_MS;
  }
}

/** Waits so long, or until it is aborted. */
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
