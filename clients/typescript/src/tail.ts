import { clone, create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { asked, Backoff, sleep } from "./backoff.js";
import { HeraldError } from "./error.js";
import {
  EventFeedService,
  StreamEventsRequestSchema,
  type StreamEventsResponse,
} from "./gen/herald/game/v1/game_pb.js";

/** The heartbeat interval of a request that names none, and what the server brings others to,
 * in milliseconds. */
const HEARTBEAT_MS = { usual: 15_000, least: 1_000, most: 60_000 };

/** After so many intervals without a message a stream is dead: one may be late, two lost. */
const SILENT_INTERVALS = 3;

/** How a tail is read. */
export interface TailOptions {
  /** Ends the tail without an error, at once. */
  signal?: AbortSignal | undefined;
  /** Told when another stream is opened after a wait of so many milliseconds; the error is why,
   * none when the server has ended the stream in order. */
  onReconnect?: ((delayMs: number, error?: HeraldError) => void) | undefined;
}

/**
 * Streams one after the other as if they were one. Gives each response whole, with its `cursor`:
 * deal with its events, then store the cursor, and start with it as `afterCursor` the next time.
 *
 * A stream that breaks, is closed by the server, or is silent for three heartbeat intervals, is
 * followed by another one behind the newest cursor, for as long as it takes. It ends by itself
 * after `maxEvents`, counted over all streams, and with `stopWhenCaughtUp`; leaving the loop ends
 * it too. It fails with a {@link HeraldError} that trying again cannot help, such as one of the
 * reason `CURSOR_EXPIRED`, `CURSOR_AHEAD` or `FEED_EPOCH_CHANGED`.
 */
export async function* tail(
  transport: Transport,
  request: MessageInitShape<typeof StreamEventsRequestSchema>,
  { signal, onReconnect }: TailOptions = {},
): AsyncGenerator<StreamEventsResponse, void, undefined> {
  const feed = createClient(EventFeedService, transport);
  const next = clone(StreamEventsRequestSchema, create(StreamEventsRequestSchema, request));
  // What is no such message is a slip of the caller's, and fails at once.
  toBinary(StreamEventsRequestSchema, next);
  const { usual, least, most } = HEARTBEAT_MS;
  const interval = next.heartbeatInterval ? durationMs(next.heartbeatInterval) : usual;
  const patienceMs = SILENT_INTERVALS * Math.min(Math.max(interval, least), most);
  const endless = next.maxEvents <= 0n;
  let caughtUp = false;
  // At 0 events left, another request would mean "no end".
  const complete = () =>
    (!endless && next.maxEvents <= 0n) || (next.stopWhenCaughtUp && caughtUp);
  const backoff = new Backoff();
  while (!signal?.aborted) {
    const stream = new AbortController();
    const end = () => stream.abort();
    signal?.addEventListener("abort", end);
    let silent = false;
    let delayMs: number | undefined;
    let error: HeraldError | undefined;
    try {
      const answers = feed.streamEvents(next, { signal: stream.signal })[Symbol.asyncIterator]();
      while (delayMs === undefined) {
        // Runs only while a message is waited for, not while one is dealt with.
        const timer = setTimeout(() => {
          silent = true;
          end();
        }, patienceMs);
        const answer = await answers.next().finally(() => clearTimeout(timer));
        if (answer.done || signal?.aborted) break;
        const { cursor, response } = answer.value;
        if (cursor) next.start = { case: "afterCursor", value: cursor };
        if (response.case === "batch") {
          backoff.reset();
          if (!endless) next.maxEvents -= BigInt(response.value.events.length);
        } else if (response.case === "caughtUp" || response.case === "fellBehind") {
          caughtUp = response.case === "caughtUp";
        }
        yield answer.value;
        if (response.case === "closing") {
          if (complete()) return;
          const { resumable, reconnectDelay } = response.value;
          if (!resumable) throw lost();
          delayMs = reconnectDelay ? asked(durationMs(reconnectDelay)) : 0;
        }
      }
    } catch (failure) {
      error = new HeraldError(silent ? silence(patienceMs) : failure);
    } finally {
      signal?.removeEventListener("abort", end);
      stream.abort();
    }
    if (signal?.aborted || complete()) return;
    if (error && !error.retryable) throw error;
    // A closing without a delay, and an end without a closing, are waited for as errors are.
    delayMs ||= backoff.next(error?.retryDelayMs);
    onReconnect?.(delayMs, error);
    await sleep(delayMs, signal);
  }
}

function silence(ms: number): ConnectError {
  return new ConnectError(`nothing came for ${ms / 1000} s`, Code.DeadlineExceeded);
}

function lost(): ConnectError {
  return new ConnectError("the server has closed the stream for good", Code.FailedPrecondition);
}
