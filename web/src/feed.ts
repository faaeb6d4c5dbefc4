// Reads the feed: one stream at a time, each behind the cursor of the one before.

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, durationMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Backoff, sleep } from "./backoff";
import { events, failure } from "./calls";
import {
  type DeliveredEvent,
  EventFilterSchema,
  ExpiredCursorPolicy,
  GapReason,
  StartPosition,
  type StreamEventsRequestSchema,
  type StreamEventsResponse,
} from "./gen/game_pb";

/** How often the server is to say something. */
const HEARTBEAT_MS = 5_000;

/** What is silent for so long is gone: three heartbeats, as the README says. */
const SILENCE_MS = 3 * HEARTBEAT_MS;

/** How long messages are taken before the browser may draw: less than a frame. */
const SLICE_MS = 8;

export interface State {
  name: "connecting" | "catching up" | "live" | "reconnecting" | "paused" | "stopped";
  /** Why, where that is not what the user asked for. */
  why: string;
}

/** Where to begin: so long ago, or at one end of the log. */
export type Start = "now" | "all" | { agoMs: number };

export interface Filter {
  types: string[];
  player: string;
  guild: string;
}

/** Who gets what is read. */
export interface Reader {
  state(state: State): void;
  events(events: DeliveredEvent[]): void;
  /** Something else to show among the events. */
  note(text: string): void;
}

export class Feed {
  readonly #reader: Reader;
  #start: NonNullable<MessageInitShape<typeof StreamEventsRequestSchema>["start"]> = {
    case: undefined,
  };
  #filter: Filter = { types: [], player: "", guild: "" };
  /** Where it began; empty before the first message. */
  #origin = "";
  /** Behind all that was given to the reader; empty before the first message. */
  #cursor = "";
  #reading = new AbortController();

  constructor(reader: Reader) {
    this.#reader = reader;
  }

  /** Begins anew. */
  begin(start: Start, filter: Filter): void {
    this.#origin = this.#cursor = "";
    this.#start =
      start === "now"
        ? { case: "startPosition", value: StartPosition.LATEST }
        : start === "all"
          ? { case: "startPosition", value: StartPosition.EARLIEST }
          : { case: "startTime", value: timestampFromMs(Date.now() - start.agoMs) };
    this.#filter = filter;
    this.resume();
  }

  /** Reads with another filter what it has read, from where it began, and goes on. */
  filter(filter: Filter): void {
    this.#cursor = this.#origin;
    this.#filter = filter;
    this.resume();
  }

  /** Stops reading and keeps the place. */
  pause(): void {
    this.#reading.abort();
    this.#reader.state({ name: "paused", why: "" });
  }

  /** Goes on from where it is. */
  resume(): void {
    this.#reading.abort();
    this.#reading = new AbortController();
    this.#reader.state({ name: this.#cursor ? "catching up" : "connecting", why: "" });
    void this.#run(this.#reading.signal);
  }

  async #run(signal: AbortSignal): Promise<void> {
    const backoff = new Backoff();
    while (!signal.aborted) {
      let delay: number;
      let why: string;
      try {
        delay = await this.#stream(signal, backoff);
        why = "the server has closed the stream";
      } catch (error) {
        if (signal.aborted) return;
        const failed = failure(error);
        if (!failed.retryable) {
          const wrong = failed.violations.map((v) => `${v.field}: ${v.description}`);
          this.#reader.state({ name: "stopped", why: wrong.join("; ") || failed.text });
          return;
        }
        delay = Math.max(backoff.next(), failed.retryDelayMs);
        why = failed.text;
      }
      if (signal.aborted) return;
      this.#reader.state({ name: "reconnecting", why });
      await sleep(delay, signal);
    }
  }

  /** Reads one stream to its end; returns how long to wait before the next one. */
  async #stream(signal: AbortSignal, backoff: Backoff): Promise<number> {
    const silence = new AbortController();
    let timer = 0;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
    };
    heard();
    // A server that is stopping says how long to wait; other ends are as good as an error.
    let closing = -1;
    try {
      const stream = events.streamEvents(this.#request(), {
        signal: AbortSignal.any([signal, silence.signal]),
      });
      let slice = performance.now();
      for await (const message of stream) {
        // What was on its way when the user stopped is read again later.
        if (signal.aborted) return 0;
        heard();
        closing = Math.max(closing, this.#take(message, backoff));
        if (performance.now() - slice > SLICE_MS) {
          await turn();
          slice = performance.now();
        }
      }
    } finally {
      clearTimeout(timer);
    }
    return closing >= 0 ? closing : backoff.next();
  }

  #request(): MessageInitShape<typeof StreamEventsRequestSchema> {
    const { types, player, guild } = this.#filter;
    return {
      start: this.#cursor ? { case: "afterCursor", value: this.#cursor } : this.#start,
      filter: create(EventFilterSchema, {
        eventTypes: types,
        playerIds: player ? [player] : [],
        guildIds: guild ? [guild] : [],
      }),
      heartbeatInterval: durationFromMs(HEARTBEAT_MS),
      // What retention has removed meanwhile is shown as a gap.
      expiredCursorPolicy: ExpiredCursorPolicy.EARLIEST,
    };
  }

  /** Takes one message, and then its cursor; returns the delay of a Closing, else -1. */
  #take(message: StreamEventsResponse, backoff: Backoff): number {
    const { response } = message;
    let closing = -1;
    switch (response.case) {
      case "opened":
        this.#reader.state({ name: "catching up", why: "" });
        this.#origin ||= message.cursor;
        break;
      case "batch":
        backoff.reset();
        this.#reader.events(response.value.events);
        break;
      case "caughtUp":
        backoff.reset();
        this.#reader.state({ name: "live", why: "" });
        break;
      case "fellBehind":
        this.#reader.state({ name: "catching up", why: "events come faster than they are read" });
        break;
      case "gap": {
        const { missedRecords: missed, partition, reason } = response.value;
        const count = missed > 0n ? `${missed} records are` : "Something is";
        this.#reader.note(`${count} missing in partition ${partition}: ${GAPS[reason]}`);
        break;
      }
      case "closing":
        closing = response.value.reconnectDelay ? durationMs(response.value.reconnectDelay) : 0;
        break;
    }
    this.#cursor = message.cursor;
    return closing;
  }
}

const GAPS: Record<GapReason, string> = {
  [GapReason.UNSPECIFIED]: "the server does not say why",
  [GapReason.RETENTION]: "retention has removed them",
  [GapReason.UNDECODABLE]: "this is no event of Herald's",
  [GapReason.SKIPPED]: "they were skipped",
};

/** Lets the browser draw and hear the user, also when the next message is there already. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => {
      channel.port1.close();
      resolve();
    };
    channel.port2.postMessage(null);
  });
}
