// What a back end in Node and a page do with the Connect protocol, by the clients that they
// would use, against a real server.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { subscribe } from "node:diagnostics_channel";
import { beforeEach, describe, test } from "node:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import {
  createConnectTransport as createNodeTransport,
  Http2SessionManager,
} from "@connectrpc/connect-node";
import { createConnectTransport as createWebTransport } from "@connectrpc/connect-web";
import { EventFeedService, GameService } from "./gen/game_pb.js";
import { BadRequestSchema, ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";

const baseUrl = process.env.HERALD_URL;

/** What was sent in a test, such as "GET GetPlayer". */
const sent = [];
beforeEach(() => sent.splice(0));

function note(method, url) {
  sent.push(`${method} ${new URL(url, baseUrl).pathname.split("/").at(-1)}`);
}

subscribe("http.client.response.finish", ({ request }) => note(request.method, request.path));

class NotingSessionManager extends Http2SessionManager {
  request(method, path, ...rest) {
    note(method, path);
    return super.request(method, path, ...rest);
  }
}

function notingFetch(url, init) {
  note(init.method, url);
  return fetch(url, init);
}

const transports = {
  "Node over HTTP/1.1": (options) => createNodeTransport({ httpVersion: "1.1", ...options }),
  "Node over HTTP/2": (options) => {
    const sessionManager = new NotingSessionManager(baseUrl);
    return createNodeTransport({ httpVersion: "2", sessionManager, ...options });
  },
  "a page": (options) => createWebTransport({ fetch: notingFetch, ...options }),
};

// The server answers a tenth before the deadline: a second of it is time enough to hear it.
const DEADLINE_MS = 10_000;

/** Goes on with the same message until there is an answer. */
const retry = (next) => async (request) => {
  for (;;) {
    try {
      return await next(request);
    } catch (error) {
      if (ConnectError.from(error).code !== Code.Unavailable) throw error;
    }
  }
};

/** What a call is refused with. */
function refusal(call) {
  return call.then(() => assert.fail("it was taken"), ConnectError.from);
}

function reasons(error) {
  return error.findDetails(ErrorInfoSchema).map((info) => info.reason);
}

const forms = Object.keys(transports).flatMap((name) => [
  { name, useBinaryFormat: false },
  { name, useBinaryFormat: true },
]);

function clients({ name, useBinaryFormat }, ...interceptors) {
  const options = { baseUrl, useBinaryFormat, useHttpGet: true, interceptors };
  const transport = transports[name](options);
  return {
    game: createClient(GameService, transport),
    feed: createClient(EventFeedService, transport),
  };
}

for (const form of forms) {
  describe(`${form.name}, in ${form.useBinaryFormat ? "protobuf" : "JSON"}`, () => {
    test("buys by POST, and reads by GET", async () => {
      const { game } = clients(form);
      const playerId = randomUUID();
      const { receipt, purchase } = await game.purchaseItem({ playerId, itemId: "sword" });
      assert.equal(purchase.totalPrice, 100n);
      const { player } = await game.getPlayer({ playerId, atLeastCursor: receipt.cursor });
      assert.deepEqual([player.inventory[0].itemId, player.inventory[0].quantity], ["sword", 1n]);
      assert.equal((await game.getCatalog({})).currencyCode, "gold");
      assert.deepEqual(sent, ["POST PurchaseItem", "GET GetPlayer", "GET GetCatalog"]);
    });

    test("reads why it is refused", async () => {
      const { game } = clients(form);
      const written = await refusal(game.purchaseItem({ itemId: "dragon", quantity: 0 }));
      assert.equal(written.code, Code.InvalidArgument);
      assert.deepEqual(reasons(written), ["VALIDATION_FAILED"]);
      const [{ fieldViolations }] = written.findDetails(BadRequestSchema);
      const fields = fieldViolations.map((violation) => violation.field);
      assert.deepEqual(fields.sort(), ["item_id", "player_id", "quantity"]);
      const read = await refusal(game.getPlayer({ playerId: randomUUID() }));
      assert.equal(read.code, Code.NotFound);
      assert.deepEqual(reasons(read), ["PLAYER_UNKNOWN"]);
      assert.notEqual(read.rawMessage, "");
    });

    test("tries an action again, which is carried out once", async () => {
      let answers = 0;
      const loseFirst = (next) => async (request) => {
        const answer = await next(request);
        if (answers++ === 0) throw new ConnectError("lost on its way", Code.Unavailable);
        return answer;
      };
      const { game } = clients(form, retry, loseFirst);
      const [playerId, requestId] = [randomUUID(), randomUUID()];
      const { receipt } = await game.grantItem({ requestId, playerId, itemId: "knife" });
      assert.deepEqual([receipt.replayed, receipt.requestId], [true, requestId]);
      assert.deepEqual(sent, ["POST GrantItem", "POST GrantItem"]);
      const { player } = await game.getPlayer({ playerId, atLeastCursor: receipt.cursor });
      assert.equal(player.inventory[0].quantity, 1n);
    });
  });
}

test("each is answered before its deadline", async () => {
  // Nobody is called so, so that nothing comes.
  const asked = { filter: { playerIds: [randomUUID()] }, maxWait: { seconds: 60n } };
  const polls = forms.map((form) =>
    clients(form).feed.pollEvents(asked, { timeoutMs: DEADLINE_MS }),
  );
  for (const polled of await Promise.all(polls)) {
    assert.deepEqual(polled.events, []);
    assert.notEqual(polled.cursor, "");
  }
});
