import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { type DescMessage, type MessageInitShape, toBinary, create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { ErrorInfoSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import { type CallOptions, GameService, Herald, HeraldError } from "../src/index.js";
import { Clock } from "./clock.js";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const SWORD = { playerId: "alice", itemId: "sword" };

function detail<D extends DescMessage>(desc: D, value: MessageInitShape<D>) {
  return { desc, value } as { desc: DescMessage; value: MessageInitShape<DescMessage> };
}

/** An error as Herald's, or of a domain that is not its own. */
function refused(code: Code, reason: string, retryMs?: number, domain = "herald"): ConnectError {
  const details = [detail(ErrorInfoSchema, { domain, reason })];
  if (retryMs !== undefined) {
    details.push(detail(RetryInfoSchema, { retryDelay: durationFromMs(retryMs) }));
  }
  return new ConnectError("no", code, undefined, details);
}

/** Buys a sword from a server that fails with these, one after the other, and then sells it. */
async function buy(test: TestContext, failures: ConnectError[], options?: CallOptions) {
  const clock = new Clock(test);
  const requestIds: string[] = [];
  const at: number[] = [];
  const transport = createRouterTransport(({ service }) => {
    service(GameService, {
      purchaseItem({ requestId }) {
        requestIds.push(requestId);
        at.push(clock.now);
        const failure = failures[requestIds.length - 1];
        if (failure) throw failure;
        return {};
      },
    });
  });
  let error: HeraldError | undefined;
  try {
    await clock.run(new Herald(transport).game.purchaseItem(SWORD, options));
  } catch (failure) {
    assert.ok(failure instanceof HeraldError, String(failure));
    error = failure;
  }
  return { requestIds, waits: at.slice(1).map((time, index) => time - at[index]!), error };
}

test("all attempts have one request id, and those of another action another", async (test) => {
  const failures = [Code.Unavailable, Code.DeadlineExceeded, Code.Internal, Code.Unknown];
  const first = await buy(test, failures.map((code) => new ConnectError("no", code)));
  assert.equal(first.error, undefined);
  assert.equal(first.requestIds.length, 5);
  assert.equal(new Set(first.requestIds).size, 1);
  assert.match(first.requestIds[0]!, UUID);
  for (const [index, full] of [250, 500, 1_000, 2_000].entries()) {
    assert.ok(first.waits[index]! >= full / 2 && first.waits[index]! <= full);
  }
  const second = await buy(test, []);
  assert.notEqual(second.requestIds[0], first.requestIds[0]);
});

test("it gives up after as many attempts as it has", async (test) => {
  const failures = Array.from({ length: 9 }, () => new ConnectError("no", Code.Unavailable));
  assert.equal((await buy(test, failures)).requestIds.length, 5);
  const { requestIds, error } = await buy(test, failures, { attempts: 2 });
  assert.equal(requestIds.length, 2);
  assert.equal(error?.requestId, requestIds[0]);
});

test("a retry delay is waited for, for five minutes at the most", async (test) => {
  const { waits } = await buy(test, [
    refused(Code.ResourceExhausted, "OVERLOADED", 3_000),
    refused(Code.Unavailable, "LOG_UNAVAILABLE", 86_400_000),
    refused(Code.Unavailable, "LOG_UNAVAILABLE", 1),
  ]);
  assert.deepEqual(waits.slice(0, 2), [3_000, 300_000]);
  assert.ok(waits[2]! >= 500 && waits[2]! <= 1_000);
});

// What fails, whether it is tried again, and whether it may have happened.
const FAILURES: [string, ConnectError, boolean, boolean][] = [
  ["a refusal", refused(Code.InvalidArgument, "VALIDATION_FAILED"), false, false],
  ["an outcome that is open", refused(Code.DeadlineExceeded, "WRITE_OUTCOME_UNKNOWN"), true, true],
  ["one under way", refused(Code.Aborted, "REQUEST_IN_PROGRESS", 1), true, true],
  ["a log that is away", refused(Code.Unavailable, "LOG_UNAVAILABLE"), true, false],
  ["a newer reason", refused(Code.Aborted, "NEWER"), false, false],
  ["a newer reason with a delay", refused(Code.Aborted, "NEWER", 0), true, false],
  ["a newer reason that is unavailable", refused(Code.Unavailable, "NEWER"), true, false],
  ["a foreign reason", refused(Code.Aborted, "OVERLOADED", 1, "other"), false, true],
  ["a proxy's", new ConnectError("no", Code.Unavailable), true, true],
  ["a stream that was reset", new ConnectError("no", Code.Canceled), true, true],
  ["a refusal of a proxy", new ConnectError("no", Code.PermissionDenied), false, true],
  ["a server without the method", new ConnectError("no", Code.Unimplemented), false, false],
];

test("an error says whether trying again can help, and what it leaves open", async (test) => {
  for (const [name, failure, again, open] of FAILURES) {
    await test.test(name, async (test) => {
      const { requestIds, error } = await buy(test, Array(5).fill(failure), { attempts: 2 });
      assert.equal(requestIds.length, again ? 2 : 1);
      assert.equal(error?.retryable, again);
      assert.equal(error?.mayHaveHappened, open);
    });
  }
});

test("what an earlier attempt may have done is not forgotten", async (test) => {
  const { error } = await buy(test, [
    new ConnectError("lost on its way", Code.Unavailable),
    refused(Code.Unavailable, "LOG_UNAVAILABLE"),
  ], { attempts: 2 });
  assert.deepEqual([error?.reason, error?.mayHaveHappened], ["LOG_UNAVAILABLE", true]);
});

test("a connection that is reset is no answer", () => {
  // As connect-node has it.
  const reset = new ConnectError("read ECONNRESET", Code.Aborted);
  reset.cause = Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" });
  assert.equal(new HeraldError(reset).retryable, true);
  assert.equal(new HeraldError(new ConnectError("no", Code.Aborted)).retryable, false);
});

test("a caller who ends the call is not kept waiting", async (test) => {
  const ended = new AbortController();
  const failures = Array.from({ length: 9 }, () => refused(Code.Unavailable, "OVERLOADED", 60_000));
  const buying = buy(test, failures, { signal: ended.signal });
  // Sooner than the server asks for, by the clock of the test.
  setTimeout(() => ended.abort(), 10_000);
  const { requestIds, error } = await buying;
  assert.equal(error?.code, Code.Canceled);
  assert.equal(requestIds.length, 1);
});

test("a request is not changed, and one that cannot be sent fails at once", async () => {
  let calls = 0;
  const transport = createRouterTransport(({ service }) => {
    service(GameService, {
      purchaseItem: () => (calls++, {}),
      getReceipt: ({ requestId }) => ({ receipt: { requestId } }),
    });
  });
  const { game } = new Herald(transport);
  const request = create(GameService.method.purchaseItem.input, SWORD);
  const before = toBinary(GameService.method.purchaseItem.input, request);
  await game.purchaseItem(request);
  assert.deepEqual(toBinary(GameService.method.purchaseItem.input, request), before);
  await assert.rejects(game.purchaseItem({ ...SWORD, quantity: 1.5 }), /int32/);
  assert.equal(calls, 1);
  // A call that only reads is given no request id of its own.
  assert.equal((await game.getReceipt({ playerId: "alice" })).receipt?.requestId, "");
});
