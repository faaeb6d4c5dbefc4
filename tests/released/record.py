"""Records what a version has on the wire: `record.py VERSION IMAGE`, by scripts/release-proto.

A client with the present schema, which is in IMAGE, calls the server that HERALD_BIN names, with
every field set that there is in a request.
"""

import json
import pathlib
import sys
import tempfile

import grpc
from google.protobuf import json_format

import running
from released import CATALOG, FOLDER, Schema, essence
from stub import DEADLINE

PLAYER = "veteran"

CONTEXT = {
    "clientTime": "2026-11-29T10:00:00.123456789Z",
    "sessionId": "a session",
    "buildVersion": "1.4.2",
    "platform": "android",
}

# In order, each by its own request id. The purchase that is refunded is the first one.
ACTIONS = [
    ("StartSession", {}),
    ("PurchaseItem", {"itemId": "sword", "quantity": 2}),
    ("GrantItem", {"itemId": "knife", "quantity": 3, "reason": "daily_reward"}),
    ("ConsumeItem", {"itemId": "knife", "quantity": 1}),
    ("JoinGuild", {"guildId": "owls"}),
    ("LeaveGuild", {"guildId": "owls"}),
    ("RefundPurchase", {"purchaseEventId": None}),
    ("JoinGuild", {"guildId": "owls"}),
]

FILTER = {"eventTypes": ["item_purchased"], "playerIds": [PLAYER], "guildIds": []}

READS = {
    "GameService/GetCatalog": {},
    "GameService/GetPlayer": {"playerId": PLAYER},
    "GameService/GetReceipt": {"playerId": PLAYER, "requestId": None},
    "GameService/ListGuildMembers": {"guildId": "owls", "pageSize": 10},
    "EventFeedService/GetFeed": {},
    "EventFeedService/PollEvents": {
        "startPosition": "START_POSITION_EARLIEST", "filter": FILTER, "maxWait": "1s",
        "maxEvents": 10, "expiredCursorPolicy": "EXPIRED_CURSOR_POLICY_LATEST",
    },
    "EventFeedService/StreamEvents": {
        "startTime": "2026-01-01T00:00:00Z", "filter": FILTER, "heartbeatInterval": "5s",
        "maxEvents": "10", "stopWhenCaughtUp": True,
    },
}  # fmt: skip


def entry(rpc, request):
    return {"rpc": rpc, "says": json_format.MessageToDict(request), "bytes": encoded(request)}


def encoded(message):
    return message.SerializeToString(deterministic=True).hex()


def record(schema, server):
    """Carries all of it out."""
    actions, reads = [], []
    with grpc.insecure_channel(server.address) as channel:

        def call(rpc, says):
            request = json_format.ParseDict(says, schema.method(rpc)[0]())
            answer = schema.client(channel, rpc)(request.SerializeToString(), timeout=DEADLINE)
            return entry(rpc, request), answer

        bought = None
        for number, (method, own) in enumerate(ACTIONS, 1):
            own = {name: bought if value is None else value for name, value in own.items()}
            request_id = f"00000000-0000-4000-8000-{number:012}"
            says = {"requestId": request_id, "playerId": PLAYER, "clientContext": CONTEXT} | own
            done, answer = call(f"GameService/{method}", says)
            actions.append(done | {"event_id": answer.receipt.event_id})
            bought = bought or (answer.receipt.event_id if method == "PurchaseItem" else None)
        for rpc, says in READS.items():
            own = {name: request_id if value is None else value for name, value in says.items()}
            asked, answer = call(rpc, own)
            reads.append(asked | {"answer": essence(answer)})
        refuse(schema, channel)
        running.wait_until(
            lambda: has_refusal(schema.log(channel)), running.START_SECONDS, "the refusal"
        )
        events = schema.log(channel, include_origin=True)
    events = [{"says": json_format.MessageToDict(e), "bytes": encoded(e)} for e in events]
    return {"actions": actions, "reads": reads, "events": events}


def refuse(schema, channel):
    """An action that is not carried out, and leaves an event all the same."""
    request = schema.message("PurchaseItemRequest")(player_id=PLAYER, item_id="dragon")
    try:
        purchase = schema.client(channel, "GameService/PurchaseItem")
        purchase(request.SerializeToString(), timeout=DEADLINE)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    else:
        raise AssertionError("dragons are sold")


def has_refusal(events):
    return any(event.event_type == "request_rejected" for event in events)


def main(version, image):
    folder = FOLDER / version
    image = pathlib.Path(image).read_bytes()
    with tempfile.TemporaryDirectory() as scratch:
        catalog = pathlib.Path(scratch) / "catalog.toml"
        catalog.write_text(CATALOG, encoding="utf-8")
        with running.Server(pathlib.Path(scratch) / "data", "--catalog", catalog) as server:
            running.wait_until(server.is_ready, running.START_SECONDS, "ready")
            found = record(Schema(image), server)
    folder.mkdir(exist_ok=True)
    (folder / "schema.binpb").write_bytes(image)
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    (folder / "wire.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
