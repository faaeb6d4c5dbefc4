import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import {
  EventFeedService,
  Herald,
  HeraldError,
  type StreamEventsRequest,
  type StreamEventsRequestSchema,
  type StreamEventsResponseSchema,
} from "../src/index.js";
import { Clock } from "./clock.js";

type Answer = MessageInitShape<typeof StreamEventsResponseSchema>;

/** One stream: what it says, and how it ends: in order, with an error, or never. */
interface Stream {
  answers?: Answer[];
  end?: ConnectError | "silence";
}

const opened = (cursor: string): Answer => ({ cursor, response: { case: "opened", value: {} } });
const heartbeat = (cursor: string): Answer => ({
  cursor,
  response: { case: "heartbeat", value: {} },
});
const batch = (cursor: string, events = 1): Answer => ({
  cursor,
  response: { case: "batch", value: { events: Array.from({ length: events }, () => ({})) } },
});
const closing = (cursor: string, delayMs: number, resumable = true): Answer => ({
  cursor,
  response: {
    case: "closing",
    value: { resumable, ...(delayMs && { reconnectDelay: durationFromMs(delayMs) }) },
  },
});
const gone = () => new ConnectError("gone", Code.Unavailable);

/** Follows a server that has these streams to give, and refuses any other for good. */
async function follow(
  test: TestContext,
  streams: Stream[],
  request: MessageInitShape<typeof StreamEventsRequestSchema> = {},
) {
  const clock = new Clock(test);
  const requests: StreamEventsRequest[] = [];
  const opens: number[] = [];
  const transport = createRouterTransport(({ service }) => {
    service(EventFeedService, {
      async *streamEvents(request, { signal }) {
        requests.push(request);
        opens.push(clock.now);
        const stream = streams[requests.length - 1];
        if (!stream) throw new ConnectError("that is all", Code.NotFound);
        yield* stream.answers ?? [];
        if (stream.end instanceof ConnectError) throw stream.end;
        if (stream.end === "silence") {
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
        }
      },
    });
  });
  const seen: string[] = [];
  const errors: (HeraldError | undefined)[] = [];
  let failure: unknown;
  try {
    await clock.run(
      (async () => {
        const onReconnect = (_: number, error?: HeraldError) => errors.push(error);
        const tail = new Herald(transport).tail(request, { onReconnect });
        for await (const { cursor } of tail) seen.push(cursor);
      })(),
    );
  } catch (error) {
    failure = error;
  }
  const waits = opens.slice(1).map((at, index) => at - opens[index]!);
  const starts = requests.map(({ start }) => start.value);
  return { seen, requests, waits, starts, errors, failure, clock };
}

function between(wait: number | undefined, least: number, most: number): void {
  assert.ok(wait !== undefined && wait >= least && wait <= most, `${wait}: ${least} to ${most}`);
}

test("a stream that is silent for three heartbeats is followed by another", async (test) => {
  for (const [interval, patience] of [
    [undefined, 45_000],
    [2_000, 6_000],
    [10, 3_000],
    [600_000, 180_000],
  ] as const) {
    await test.test(`${interval} ms`, async (test) => {
      const { seen, waits, starts, errors } = await follow(
        test,
        [{ answers: [opened("a"), batch("b")], end: "silence" }, { end: "silence" }],
        interval === undefined ? {} : { heartbeatInterval: durationFromMs(interval) },
      );
      assert.deepEqual(seen, ["a", "b"]);
      assert.deepEqual(starts, [undefined, "b", "b"]);
      between(waits[0], patience + 125, patience + 250);
      between(waits[1], patience + 250, patience + 500);
      assert.deepEqual(errors.map((error) => error?.code), Array(2).fill(Code.DeadlineExceeded));
    });
  }
});

test("a reader who takes long is not taken for a silent stream", async (test) => {
  const clock = new Clock(test);
  const transport = createRouterTransport(({ service }) => {
    service(EventFeedService, {
      async *streamEvents() {
        for (const cursor of ["a", "b", "c"]) yield heartbeat(cursor);
        yield closing("d", 0, false);
      },
    });
  });
  const seen: string[] = [];
  const reading = (async () => {
    for await (const { cursor } of new Herald(transport).tail({})) {
      seen.push(cursor);
      await new Promise((resolve) => setTimeout(resolve, 1_000_000));
    }
  })();
  await assert.rejects(clock.run(reading), { code: Code.FailedPrecondition });
  assert.deepEqual(seen, ["a", "b", "c", "d"]);
});

test("a closing is obeyed, for five minutes at the most", async (test) => {
  const { seen, waits, errors } = await follow(test, [
    { answers: [opened("a"), closing("b", 7_000)] },
    { answers: [closing("c", 86_400_000)] },
    { answers: [closing("d", 0)], end: "silence" },
  ]);
  assert.deepEqual(seen, ["a", "b", "c", "d"]);
  assert.deepEqual(waits.slice(0, 2), [7_000, 300_000]);
  between(waits[2], 125, 250);
  assert.deepEqual(errors, [undefined, undefined, undefined]);
});

test("a closing that is not resumable is an error", async (test) => {
  const { seen, requests, failure } = await follow(test, [{ answers: [closing("a", 5, false)] }]);
  assert.deepEqual(seen, ["a"]);
  assert.equal(requests.length, 1);
  assert.ok(failure instanceof HeraldError);
  assert.equal(failure.code, Code.FailedPrecondition);
});

test("only events start the waits from the shortest again", async (test) => {
  const empty = { answers: [opened("a"), heartbeat("b")], end: gone() };
  const { waits } = await follow(test, [
    ...Array.from({ length: 8 }, () => empty),
    { answers: [batch("c")], end: gone() },
    // An end in order that was not announced is as good as an error.
    {},
  ]);
  for (const [index, full] of [250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000].entries()) {
    between(waits[index], full / 2, full);
  }
  between(waits[8], 125, 250);
  between(waits[9], 250, 500);
});

test("it ends after as many events as were asked for, over all streams", async (test) => {
  const { requests, failure } = await follow(
    test,
    [
      { answers: [opened("a"), batch("b", 2)], end: gone() },
      { answers: [opened("b"), batch("c", 3)], end: gone() },
    ],
    { maxEvents: 5n },
  );
  assert.deepEqual(requests.map(({ maxEvents }) => maxEvents), [5n, 3n]);
  assert.equal(failure, undefined);
});

test("it ends once it has caught up, and not when it has fallen behind since", async (test) => {
  const caughtUp = (cursor: string): Answer => ({
    cursor,
    response: { case: "caughtUp", value: {} },
  });
  const fellBehind: Answer = { cursor: "c", response: { case: "fellBehind", value: {} } };
  const { requests, failure } = await follow(
    test,
    [
      { answers: [opened("a"), caughtUp("b"), fellBehind], end: gone() },
      { answers: [opened("c"), caughtUp("d")], end: gone() },
    ],
    { stopWhenCaughtUp: true },
  );
  assert.equal(requests.length, 2);
  assert.equal(failure, undefined);
});

test("a signal ends it while it reads and while it waits", async (test) => {
  for (const end of ["silence", gone()] as const) {
    await test.test(String(end), async (test) => {
      const clock = new Clock(test);
      const ended = new AbortController();
      let open = 0;
      const transport = createRouterTransport(({ service }) => {
        service(EventFeedService, {
          async *streamEvents(_, { signal }) {
            open++;
            signal.addEventListener("abort", () => open--);
            yield opened("a");
            if (end !== "silence") throw end;
            await new Promise((resolve) => signal.addEventListener("abort", resolve));
          },
        });
      });
      const reading = (async () => {
        const options = {
          signal: ended.signal,
          onReconnect: () => void queueMicrotask(() => ended.abort()),
        };
        for await (const _ of new Herald(transport).tail({}, options)) {
          if (end === "silence") setTimeout(() => ended.abort(), 10);
        }
      })();
      await clock.run(reading);
      assert.ok(clock.now <= 10, `it took ${clock.now} ms`);
      assert.equal(open, 0);
    });
  }
});
