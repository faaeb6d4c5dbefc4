"""The OpenAPI document is one, by a validator, and each operation answers as it says."""

import copy
import uuid

import jsonschema
import openapi_spec_validator
import pytest

import running
from openapi import JSON, Api, check
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    with running.Server(tmp_path_factory.mktemp("data")) as server:
        running.wait_until(server.is_ready, running.START_SECONDS, "ready")
        yield Api(server)


def test_the_document_is_valid(api):
    openapi_spec_validator.validate(api.document)


def test_a_document_that_is_not_valid_is_refused(api):
    broken = copy.deepcopy(api.document)
    del broken["paths"]["/v1/catalog"]["get"]["responses"]
    with pytest.raises(OpenAPIValidationError):
        openapi_spec_validator.validate(broken)


def test_each_operation_answers_as_the_document_says(api):
    def route(name, *body, **parameters):
        return api.call(f"GameService_{name}", *body, **parameters)

    alice = {"player_id": "alice"}
    session = route("StartSession", client_context_platform="android", **alice)
    bought = route("PurchaseItem", {"itemId": "sword", "quantity": 2}, **alice)
    assert bought["ownedQuantity"] == "2"
    key = str(uuid.uuid4())
    for replayed in (False, True):
        one = route("PurchaseItem", item_id="knife", idempotency_key=key, **alice)
        assert one["receipt"].get("replayed", False) == replayed
    route("PurchaseItem", status=409, item_id="sword", idempotency_key=key, **alice)
    route("JoinGuild", guild_id="owls", **alice)
    refused = route("PurchaseItem", {"itemId": "hat", "quantity": 0}, status=400, **alice)
    assert {it["field"] for it in refused["violations"]} == {"item_id", "quantity"}

    player = route("GetPlayer", at_least_cursor=bought["receipt"]["cursor"], **alice)
    assert player["player"]["lastSessionId"] == session["sessionId"]
    route("GetPlayer", status=404, player_id="nobody")
    assert route("GetCatalog")["currencyCode"] == "gold"
    assert route("LeaveGuild", accept="text/plain", guild_id="owls", **alice) == "left owls\n"
    said = route("LeaveGuild", status=400, accept="text/plain", guild_id="owls", **alice)
    assert said.startswith("guild_id: ")

    bob = {"playerId": "bob"}

    def game(name, body, status=200):
        return api.call(f"Connect_GameService_{name}", bob | body, status)

    game("StartSession", {"clientContext": {"clientTime": "2026-11-21T10:00:00Z"}})
    horse = game("PurchaseItem", {"itemId": "horse"})["receipt"]
    game("GrantItem", {"itemId": "shield", "quantity": 3, "reason": "daily_reward"})
    game("ConsumeItem", {"itemId": "shield", "quantity": 1})
    game("JoinGuild", {"guildId": "owls"})
    page = api.call("Connect_GameService_ListGuildMembers", {"guildId": "owls", "pageSize": 1})
    assert page["playerIds"] == ["bob"]
    game("RefundPurchase", {"purchaseEventId": horse["eventId"]})
    game("GetReceipt", {"requestId": horse["requestId"]})
    game("GetReceipt", {"requestId": str(uuid.uuid4())}, status=404)
    left = game("LeaveGuild", {"guildId": "owls"})["receipt"]
    game("GetPlayer", {"atLeastCursor": left["cursor"]})
    game("ConsumeItem", {"itemId": "shield", "quantity": 7}, status=400)
    api.call("Connect_GameService_GetCatalog", {})

    # The feed has an event of each type, those that were refused a moment later.
    filters = api.document["components"]["schemas"]["EventFilter"]["properties"]
    missing = set(filters["eventTypes"]["items"]["enum"])
    cursor = api.call("Connect_EventFeedService_GetFeed", {})["earliestCursor"]
    while missing:
        asked = {"afterCursor": cursor, "maxWait": "60s", "includeOrigin": True}
        polled = api.call("Connect_EventFeedService_PollEvents", asked)
        assert "events" in polled, f"no event of {missing}"
        missing -= {event["event"]["eventType"] for event in polled["events"]}
        cursor = polled["cursor"]
    api.call("Connect_EventFeedService_PollEvents", {"afterCursor": "none"}, status=400)

    feed = "EventFeedService_StreamEvents"
    one = {"start": "earliest", "type": "guild_left", "max_events": "1"}
    lines = api.call(feed, accept="application/x-ndjson", **one)
    assert '"eventType":"guild_left"' in lines
    events = api.call(feed, accept="text/event-stream", start=cursor, stop_when_caught_up="true")
    assert "event: opened" in events
    api.call(feed, status=406, accept="text/html")
    refused = api.call(feed, status=400, accept="text/event-stream", start="2026")
    assert refused["violations"][0]["field"] == "start"
    assert api.called == set(api.operations)


def test_an_answer_that_is_not_as_the_document_says_is_noticed(api):
    response = api.operations["GameService_GetCatalog"][2]["responses"]["200"]
    check(api.document, response, JSON, '{"items": [{"unitPrice": "1"}]}')
    for other in ('{"items": [{"unitPrice": 1}]}', '{"items": [{"price": "1"}]}', "[]"):
        with pytest.raises(jsonschema.ValidationError):
            check(api.document, response, JSON, other)
    with pytest.raises(AssertionError):
        check(api.document, response, "text/html", "")
