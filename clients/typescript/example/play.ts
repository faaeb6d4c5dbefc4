// What a game does with Herald, with any transport: in Node (node.ts) and in a page (page.ts).

import { Herald, HeraldError, StartPosition } from "../src/index.js";

/** Buys a sword, joins a guild, and is refused a dragon. */
export async function play(
  { game }: Herald,
  playerId: string,
  log: (line: string) => void,
): Promise<void> {
  const bought = await game.purchaseItem({ playerId, itemId: "sword" });
  log(`bought a sword for ${bought.purchase?.totalPrice}: event ${bought.receipt?.eventId}`);
  await game.joinGuild({ playerId, guildId: "owls" });
  log("joined owls");
  try {
    await game.purchaseItem({ playerId, itemId: "dragon" });
  } catch (error) {
    if (!(error instanceof HeraldError)) throw error;
    for (const { field, description } of error.violations) {
      log(`refused (${error.reason}): ${field} ${description}`);
    }
    // Only where the outcome is open: the same request id again, or getReceipt, finds out.
    if (error.mayHaveHappened) log(`request ${error.requestId} may have been carried out`);
  }
}

/** Where the place in the feed is kept; empty when there is none. */
export interface Cursor {
  load(): string;
  store(cursor: string): void;
}

/**
 * Follows who joins a guild, from where the last run has stopped. Ends after that many events, or
 * when the signal is aborted.
 */
export async function follow(
  herald: Herald,
  cursor: Cursor,
  { events, signal }: { events: number; signal?: AbortSignal | undefined },
  log: (line: string) => void,
): Promise<void> {
  const stored = cursor.load();
  const responses = herald.tail(
    {
      start: stored
        ? { case: "afterCursor", value: stored }
        : { case: "startPosition", value: StartPosition.EARLIEST },
      filter: { eventTypes: ["guild_joined"] },
      maxEvents: BigInt(events),
    },
    {
      signal,
      onReconnect: (ms, error) => log(`back in ${Math.round(ms)} ms: ${error?.message ?? ""}`),
    },
  );
  try {
    for await (const { cursor: behind, response } of responses) {
      if (response.case === "batch") {
        for (const { event } of response.value.events) {
          if (event?.payload.case !== "guildJoined") continue;
          log(`${event.playerId} joined ${event.payload.value.guildId}`);
        }
      } else if (response.case === "gap") {
        log(`events of partition ${response.value.partition} are missing`);
      }
      // Only now: after a crash events may come again, and none is lost.
      cursor.store(behind);
    }
  } catch (error) {
    if (!(error instanceof HeraldError) || error.reason !== "CURSOR_EXPIRED") throw error;
    // Retention has removed what comes next. Here the next run goes on behind that.
    log("events were removed before they were read");
    cursor.store(error.metadata.earliest_cursor ?? "");
  }
}
