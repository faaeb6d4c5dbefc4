import type { DeliveredEvent } from "./gen/game_pb";

/** How many rows are kept: some megabytes, and more than anybody scrolls through. */
export const MAX_ROWS = 10_000;

/** What one row shows: an event, or a note among the events. */
export type Row =
  | { kind: "event"; delivered: DeliveredEvent }
  | { kind: "note"; text: string; time: number };

/** The newest rows. Each has a number; numbers have no holes and only grow. */
export class Ring {
  readonly #rows: (Row | undefined)[] = new Array<Row | undefined>(MAX_ROWS);
  /** The number of the oldest row. */
  oldest = 0;
  /** The number that the next row gets. */
  next = 0;

  push(row: Row): void {
    this.#rows[this.next % MAX_ROWS] = row;
    this.next += 1;
    this.oldest = Math.max(this.oldest, this.next - MAX_ROWS);
  }

  get(number: number): Row | undefined {
    return number >= this.oldest && number < this.next ? this.#rows[number % MAX_ROWS] : undefined;
  }

  /** Drops all rows. */
  clear(): void {
    this.#rows.fill(undefined);
    this.oldest = this.next;
  }
}
