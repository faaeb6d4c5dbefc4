// A clock that goes on when nobody has anything left to do.

import type { TestContext } from "node:test";

/** Replaces timers for a test, and keeps the time in milliseconds. */
export class Clock {
  now = 0;
  #timers = new Map<number, { at: number; run: () => void }>();
  #last = 0;

  constructor(test: TestContext) {
    const { setTimeout, clearTimeout } = globalThis;
    Object.assign(globalThis, {
      setTimeout: (run: () => void, ms = 0) => {
        this.#timers.set(++this.#last, { at: this.now + ms, run });
        return this.#last;
      },
      clearTimeout: (timer: number) => this.#timers.delete(timer),
    });
    test.after(() => void Object.assign(globalThis, { setTimeout, clearTimeout }));
  }

  /** What the promise gives, with as much time as it takes. */
  async run<T>(promise: Promise<T>): Promise<T> {
    let done = false;
    const finished = () => void (done = true);
    promise.then(finished, finished);
    for (;;) {
      // All that can go on without a timer does: each turn runs whatever is ready.
      for (let turn = 0; turn < TURNS && !done; turn++) await new Promise(setImmediate);
      if (done) return promise;
      const [next] = [...this.#timers].sort(([, a], [, b]) => a.at - b.at);
      if (!next) throw new Error("it waits for something that never comes");
      this.#timers.delete(next[0]);
      this.now = Math.max(this.now, next[1].at);
      next[1].run();
    }
  }
}

/** More than any chain of callbacks in these tests is long. */
const TURNS = 20;
