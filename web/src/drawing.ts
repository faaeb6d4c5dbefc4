// When the page is drawn.

/** How long new events wait for more of them: nobody could read what changes more often. */
const PAUSE_MS = 100;

/** Draws everything in one frame, so that the parts of the page agree. */
export class Drawing {
  readonly #draws: (() => void)[] = [];
  #frame = 0;
  #timer = 0;
  #drawn = -Infinity;

  /** Has this done each time. */
  add(draw: () => void): void {
    this.#draws.push(draw);
  }

  /** In the next frame: for what the user does. */
  now(): void {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      clearTimeout(this.#timer);
      this.#timer = 0;
      this.#drawn = performance.now();
      for (const draw of this.#draws) draw();
    });
  }

  /** As soon as the last time is long enough ago: for what comes by itself. */
  soon(): void {
    if (this.#frame || this.#timer) return;
    const wait = this.#drawn + PAUSE_MS - performance.now();
    if (wait <= 0) this.now();
    else this.#timer = setTimeout(() => this.now(), wait);
  }
}
