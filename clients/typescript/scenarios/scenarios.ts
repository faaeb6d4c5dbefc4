// What a game does with the client, one scenario after the other: the same code in Node and in a
// browser. Whoever runs it changes the world when it is asked to, and checks the facts.

import { Code } from "@connectrpc/connect";
import {
  type EventReceipt,
  Herald,
  HeraldError,
  StartPosition,
  type StreamEventsResponse,
} from "../src/index.js";

/** Has something done to the server or its log; returns once that is done. */
export type Ask = (what: "restart" | "expire" | "pause" | "resume" | "replace") => Promise<void>;

/** How a scenario has gone. */
export interface Result {
  scenario: string;
  passed: boolean;
  /** What went otherwise; empty when it has passed. */
  why: string;
  facts: Record<string, unknown>;
}

/** The calls of a scenario that loses its server: enough for one that takes minutes to start. */
const PATIENT = { attempts: 20 };

/** The longest that a tail may take to fail, in milliseconds: far more than it takes. */
const FAILURE_MS = 30_000;

/** Runs all of them; `run` is a word for the names of players that nobody else has. */
export async function scenarios(
  herald: Herald,
  run: string,
  ask: Ask,
  tell: (result: Result) => void,
): Promise<void> {
  const requestId = crypto.randomUUID();
  for (const [scenario, steps] of Object.entries(SCENARIOS)) {
    const facts: Record<string, unknown> = {};
    let why = "";
    try {
      await steps({ herald, run, requestId, ask, facts });
    } catch (error) {
      why = error instanceof Error && error.message ? error.message : String(error);
    }
    tell({ scenario, passed: why === "", why, facts });
  }
}

interface World {
  herald: Herald;
  run: string;
  /** Of the scenarios "retry" and "conflict". */
  requestId: string;
  ask: Ask;
  facts: Record<string, unknown>;
}

const SCENARIOS: Record<string, (world: World) => Promise<void>> = {
  async purchase({ herald: { game }, run, facts }) {
    const playerId = `${run}-purchase`;
    const { items } = await game.getCatalog({});
    const price = items.find((item) => item.itemId === "sword")?.unitPrice ?? 0n;
    const { receipt, purchase } = await game.purchaseItem({
      playerId,
      itemId: "sword",
      quantity: 2,
    });
    Object.assign(facts, { event_id: receipt?.eventId, request_id: receipt?.requestId });
    equal("the total price", purchase?.totalPrice, 2n * price);
    const { player } = await game.getPlayer({ playerId, atLeastCursor: written(receipt).cursor });
    const swords = player?.inventory.find((item) => item.itemId === "sword");
    equal("the swords", swords?.quantity, 2n);
  },

  async "unknown item"({ herald: { game }, run }) {
    const error = await refusal(
      game.purchaseItem({ playerId: `${run}-purchase`, itemId: "dragon" }),
    );
    equal("the code", error.code, Code.InvalidArgument);
    equal("the reason", error.reason, "VALIDATION_FAILED");
    equal("the fields", error.violations.map(({ field }) => field).join(), "item_id");
    equal("that it may have happened", error.mayHaveHappened, false);
    equal("that it is tried again", error.retryable, false);
  },

  async retry({ herald: { game }, run, requestId, facts }) {
    const knife = { playerId: `${run}-retry`, itemId: "knife", requestId };
    const first = written((await game.purchaseItem(knife)).receipt);
    const second = written((await game.purchaseItem(knife)).receipt);
    facts.event_id = first.eventId;
    equal("the event of the second", second.eventId, first.eventId);
    equal("that the second is a replay", second.replayed, true);
    equal("the request id", second.requestId, requestId);
  },

  async conflict({ herald: { game }, run, requestId }) {
    const horses = { playerId: `${run}-retry`, itemId: "horse", quantity: 3, requestId };
    const error = await refusal(game.purchaseItem(horses));
    equal("the code", error.code, Code.AlreadyExists);
    equal("the reason", error.reason, "REQUEST_ID_CONFLICT");
  },

  async "feed filter"({ herald, run, facts }) {
    const playerId = `${run}-filter`;
    await herald.game.purchaseItem({ playerId, itemId: "sword" });
    const joined = written((await herald.game.joinGuild({ playerId, guildId: "owls" })).receipt);
    await herald.game.purchaseItem({ playerId, itemId: "knife" });
    const seen: string[] = [];
    for await (const response of herald.tail({
      start: { case: "startPosition", value: StartPosition.EARLIEST },
      filter: { eventTypes: ["guild_joined"], playerIds: [playerId] },
      stopWhenCaughtUp: true,
    })) {
      seen.push(...eventIds(response));
    }
    facts.event_ids = seen;
    equal("the events", seen.join(), joined.eventId);
  },

  async resume({ herald, run, ask, facts }) {
    const playerId = `${run}-resume`;
    const seen: string[] = [];
    let streams = 0;
    const opened = gate();
    const tailing = (async () => {
      for await (const response of herald.tail({
        filter: { playerIds: [playerId] },
        heartbeatInterval: { seconds: 1n },
        maxEvents: 30n,
      })) {
        if (response.response.case === "opened") {
          streams++;
          opened.open();
        }
        seen.push(...eventIds(response));
      }
    })();
    await Promise.race([opened, tailing]);
    const bought: string[] = [];
    while (bought.length < 30) {
      if (bought.length === 10) await ask("restart");
      const sword = { playerId, itemId: "sword" };
      bought.push(written((await herald.game.purchaseItem(sword, PATIENT)).receipt).eventId);
    }
    await tailing;
    facts.event_ids = seen;
    equal("the events", seen.join(), bought.join());
    equal("that it has come back", streams > 1, true);
  },

  async "expired cursor"({ herald, run, ask, facts }) {
    const sword = { playerId: `${run}-expired`, itemId: "sword" };
    const { cursor } = written((await herald.game.purchaseItem(sword)).receipt);
    await herald.game.purchaseItem(sword);
    await ask("expire");
    const filter = { playerIds: [sword.playerId] };
    const behind = (cursor: string) => ({
      start: { case: "afterCursor", value: cursor } as const,
      filter,
      maxEvents: 1n,
    });
    const { error, reconnects } = await failed(herald, behind(cursor));
    equal("the code", error.code, Code.OutOfRange);
    equal("the reason", error.reason, "CURSOR_EXPIRED");
    equal("the attempts after the first", reconnects, 0);
    const earliest = error.metadata.earliest_cursor ?? "";
    equal("that there is an earliest cursor", earliest !== "", true);
    const news = written((await herald.game.purchaseItem(sword)).receipt);
    const seen: string[] = [];
    for await (const response of herald.tail(behind(earliest))) seen.push(...eventIds(response));
    facts.event_ids = seen;
    equal("the events", seen.join(), news.eventId);
  },

  async deadline({ herald: { game }, run, ask, facts }) {
    const playerId = `${run}-deadline`;
    const horse = { playerId, itemId: "horse", requestId: crypto.randomUUID() };
    await ask("pause");
    let error: HeraldError;
    try {
      error = await refusal(game.purchaseItem(horse, { timeoutMs: 2_000, attempts: 1 }));
    } finally {
      await ask("resume");
    }
    equal("the code", error.code, Code.DeadlineExceeded);
    equal("the reason", error.reason, "WRITE_OUTCOME_UNKNOWN");
    equal("that it may have happened", error.mayHaveHappened, true);
    equal("the request id of the error", error.requestId, horse.requestId);
    const receipt = written((await game.purchaseItem(horse, PATIENT)).receipt);
    Object.assign(facts, { event_id: receipt.eventId, request_id: receipt.requestId });
    equal("the request id", receipt.requestId, horse.requestId);
  },

  async "epoch change"({ herald, ask }) {
    const { latestCursor } = await herald.feed.getFeed({});
    await ask("replace");
    const { error } = await failed(herald, {
      start: { case: "afterCursor", value: latestCursor },
    });
    equal("the code", error.code, Code.FailedPrecondition);
    equal("the reason", error.reason, "FEED_EPOCH_CHANGED");
  },
};

/** What the tail fails with, and how often it had tried again before. */
async function failed(
  herald: Herald,
  request: Parameters<Herald["tail"]>[0],
): Promise<{ error: HeraldError; reconnects: number }> {
  let reconnects = 0;
  const error = await refusal(
    (async () => {
      const signal = AbortSignal.timeout(FAILURE_MS);
      const onReconnect = () => reconnects++;
      for await (const { response } of herald.tail(request, { signal, onReconnect })) {
        throw new Error(`a response came, ${response.case}`);
      }
    })(),
  );
  return { error, reconnects };
}

/** What a call is refused with. */
async function refusal(call: Promise<unknown>): Promise<HeraldError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof HeraldError) return error;
    throw error;
  }
  throw new Error("it was taken");
}

function equal(what: string, found: unknown, wanted: unknown): void {
  if (found !== wanted) throw new Error(`${what}: ${found} instead of ${wanted}`);
}

function written(receipt: EventReceipt | undefined): EventReceipt {
  if (!receipt) throw new Error("there is no receipt");
  return receipt;
}

function eventIds({ response }: StreamEventsResponse): string[] {
  if (response.case !== "batch") return [];
  return response.value.events.map(({ event }) => event?.eventId ?? "none");
}

/** A promise that is kept when it is opened. */
function gate(): Promise<void> & { open: () => void } {
  let open = () => {};
  const promise = new Promise<void>((resolve) => (open = resolve));
  return Object.assign(promise, { open: () => open() });
}
