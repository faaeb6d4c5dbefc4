// What no server of these tests says by itself, and newer ones and proxies do: it is sent as bytes.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type ServerHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { Code, type Transport } from "@connectrpc/connect";
import { encodeEnvelope } from "@connectrpc/connect/protocol";
import { Herald, HeraldError, StreamEventsRequestSchema } from "../src/index.js";
import { nodeTransport } from "../src/node.js";
import { webTransport } from "../src/web.js";
import { Clock } from "./clock.js";

/** An answer: messages, or headers that say how the call has failed. */
type Answer = { messages: Uint8Array[]; status?: number } | { headers: Record<string, string> };

/** A client that is given these answers over gRPC-web, and what it has asked for. */
function overWeb(answers: Answer[]) {
  const requests: Uint8Array[] = [];
  const fetch = async (_: unknown, init?: RequestInit) => {
    const envelope = init?.body as Uint8Array;
    requests.push(envelope.subarray(5));
    const answer = answers[requests.length - 1];
    assert.ok(answer, "another request");
    const headers = { "content-type": "application/grpc-web+proto" };
    if ("headers" in answer) {
      return new Response(null, { headers: { ...headers, ...answer.headers } });
    }
    const trailer = new TextEncoder().encode(`grpc-status: ${answer.status ?? 0}\r\n`);
    const frames = answer.messages.map((message) => encodeEnvelope(0, message));
    const body = Buffer.concat([...frames, encodeEnvelope(0x80, trailer)]);
    return new Response(body, { headers });
  };
  return { transport: webTransport("http://herald.example", { fetch }), requests };
}

/** The same over gRPC. */
async function overGrpc(test: TestContext, answers: Answer[]): Promise<Transport> {
  const left = [...answers];
  const sessions: ServerHttp2Session[] = [];
  const server = createServer().listen(0, "127.0.0.1");
  server.on("session", (session) => sessions.push(session));
  server.on("stream", (stream) => {
    const headers = { ":status": 200, "content-type": "application/grpc+proto" };
    const answer = left.shift();
    assert.ok(answer, "another request");
    if ("headers" in answer) {
      stream.respond({ ...headers, ...answer.headers }, { endStream: true });
      return;
    }
    stream.respond(headers, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": answer.status ?? 0 }));
    for (const message of answer.messages) stream.write(encodeEnvelope(0, message));
    stream.end();
  });
  await once(server, "listening");
  test.after(() => {
    server.close();
    for (const session of sessions) session.destroy();
  });
  return nodeTransport(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
}

const bytes = (hex: string) => new Uint8Array(Buffer.from(hex.replaceAll(" ", ""), "hex"));

// No base64, and no google.rpc.Status.
for (const details of ["%%%", "Cv8"]) {
  const headers = { "grpc-status": "14", "grpc-message": "no", "grpc-status-details-bin": details };
  for (const protocol of ["gRPC", "gRPC-web"]) {
    const name = `details that cannot be decoded are as none, ${details} over ${protocol}`;
    test(name, { timeout: 60_000 }, async (test) => {
      const told = async (...answers: Answer[]) =>
        new Herald(
          protocol === "gRPC" ? await overGrpc(test, answers) : overWeb(answers).transport,
        );
      const sword = { playerId: "alice", itemId: "sword" };
      const herald = await told({ headers }, { messages: [bytes("")] });
      await herald.game.purchaseItem(sword);

      const buying = (await told({ headers })).game.purchaseItem(sword, { attempts: 1 });
      await assert.rejects(buying, (error: unknown) => {
        assert.ok(error instanceof HeraldError);
        assert.deepEqual([error.code, error.reason], [Code.Unknown, ""]);
        assert.deepEqual([error.retryable, error.mayHaveHappened], [true, true]);
        return true;
      });

      const errors: (HeraldError | undefined)[] = [];
      const tail = (await told({ headers }, { messages: [bytes("0a 01 61")] })).tail(
        {},
        { onReconnect: (_, error) => errors.push(error) },
      );
      for await (const { cursor } of tail) {
        assert.equal(cursor, "a");
        break;
      }
      assert.deepEqual(errors.map((error) => error?.code), [Code.Unknown]);
    });
  }
}

test("what a newer server invents is passed on, and its cursor is used", async (test) => {
  const clock = new Clock(test);
  const { transport, requests } = overWeb([
    // The cursor "a" beside a member 99 of the oneof.
    { messages: [bytes("0a 01 61 9a06 01 78")], status: Code.Unavailable },
    // The cursor "b" beside a resumable closing of reason 77, with a wait of 7 s.
    { messages: [bytes("0a 01 62 42 08 08 4d 12 02 08 07 18 01")] },
    { messages: [], status: Code.NotFound },
  ]);
  const waits: number[] = [];
  const errors: (Code | undefined)[] = [];
  const onReconnect = (delayMs: number, error?: HeraldError) => {
    waits.push(delayMs);
    errors.push(error?.code);
  };
  const seen: unknown[] = [];
  const reading = (async () => {
    for await (const { cursor, response } of new Herald(transport).tail({}, { onReconnect })) {
      seen.push([cursor, response.case === "closing" ? response.value.reason : response.case]);
    }
  })();
  await assert.rejects(clock.run(reading), { code: Code.NotFound });
  assert.deepEqual(seen, [["a", undefined], ["b", 77]]);
  const starts = requests.map((request) => fromBinary(StreamEventsRequestSchema, request).start);
  assert.deepEqual(starts.map(({ value }) => value), [undefined, "a", "b"]);
  assert.deepEqual(errors, [Code.Unavailable, undefined]);
  assert.equal(waits[1], 7_000);
});
