import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http2";
import { connect, createServer as createTcpServer, type AddressInfo, type Socket } from "node:net";
import { test, type TestContext } from "node:test";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { EventFeedService, GameService, Herald, HeraldError } from "../src/index.js";
import { nodeTransport } from "../src/node.js";

/** What takes longer hangs. */
const LONG = { timeout: 60_000 };

/** A server over gRPC whose connections lead through a path that can fall silent. */
async function served(test: TestContext) {
  const cursors: string[] = [];
  const routes = connectNodeAdapter({
    routes({ service }) {
      service(GameService, { getCatalog: () => ({ currencyCode: "gold" }) });
      service(EventFeedService, {
        async *streamEvents({ start }, { signal }) {
          cursors.push(start.value?.toString() ?? "");
          const cursor = String(cursors.length);
          yield { cursor, response: { case: "batch", value: { events: [{}] } } };
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
        },
      });
    },
  });
  const server = createServer(routes).listen(0, "127.0.0.1");
  await once(server, "listening");
  const sockets: Socket[] = [];
  const path = createTcpServer((client) => {
    const behind = connect((server.address() as AddressInfo).port, "127.0.0.1");
    client.pipe(behind).pipe(client);
    for (const socket of [client, behind]) socket.on("error", () => socket.destroy());
    sockets.push(client, behind);
  }).listen(0, "127.0.0.1");
  await once(path, "listening");
  test.after(() => {
    path.close();
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return {
    url: `http://127.0.0.1:${(path.address() as AddressInfo).port}`,
    cursors,
    connections: () => sockets.length / 2,
    /** Nothing comes through any more, on the connections that there are. */
    fallSilent: () => sockets.forEach((socket) => socket.unpipe().pause()),
    /** They are reset. */
    reset: () => sockets.forEach((socket) => socket.resetAndDestroy()),
  };
}

// A stream is silent for three seconds before it is ended: the connection is asked before that,
// or when the next stream but one is opened on it.
for (const pingIntervalMs of [200, 4_000]) {
  const name = `a connection that has died unnoticed is not used again, ${pingIntervalMs} ms`;
  test(name, LONG, async (test) => {
    const server = await served(test);
    const options = { pingIntervalMs, pingTimeoutMs: 2_000 };
    const herald = new Herald(nodeTransport(server.url, options));
    const seen: string[] = [];
    for await (const { cursor } of herald.tail({ heartbeatInterval: { seconds: 1n } })) {
      seen.push(cursor);
      if (seen.length === 1) server.fallSilent();
      if (seen.length === 2) break;
    }
    // A machine that is slow may take a connection that lives for dead, and ask once more.
    assert.deepEqual(seen, ["1", String(server.cursors.length)]);
    const [first, ...others] = server.cursors;
    assert.equal(first, "");
    assert.deepEqual(new Set(others), new Set(["1"]));
    assert.ok(server.connections() >= 2, `${server.connections()} connections`);
  });
}

test("a connection that is reset is followed by another", LONG, async (test) => {
  const server = await served(test);
  const herald = new Herald(nodeTransport(server.url));
  const seen: string[] = [];
  for await (const { cursor } of herald.tail({})) {
    seen.push(cursor);
    if (seen.length === 1) server.reset();
    if (seen.length === 2) break;
  }
  assert.deepEqual(seen, ["1", "2"]);
  server.reset();
  assert.equal((await herald.game.getCatalog({})).currencyCode, "gold");
});

test("where no server is, nothing was done", LONG, async () => {
  const nobody = createTcpServer().listen(0, "127.0.0.1");
  await once(nobody, "listening");
  const { port } = nobody.address() as AddressInfo;
  nobody.close();
  await once(nobody, "close");
  const { game } = new Herald(nodeTransport(`http://127.0.0.1:${port}`));
  const buying = game.purchaseItem({ playerId: "alice", itemId: "sword" }, { attempts: 2 });
  await assert.rejects(buying, (error: unknown) => {
    assert.ok(error instanceof HeraldError);
    assert.deepEqual([error.retryable, error.mayHaveHappened], [true, false], error.message);
    return true;
  });
});
