"""A client in Python, made with the stock tools, gets on with the real server."""

import uuid

import grpc
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from stub import DEADLINE, refused


@pytest.fixture(scope="module")
def receipts(stub):
    """What alice did, in order."""
    pb = stub.pb
    session = stub.game.StartSession(pb.StartSessionRequest(player_id="alice"), timeout=DEADLINE)
    purchase = stub.game.PurchaseItem(
        pb.PurchaseItemRequest(
            request_id=str(uuid.uuid4()), player_id="alice", item_id="sword", quantity=2
        ),
        timeout=DEADLINE,
    )
    assert session.session_id == session.receipt.event_id
    assert (purchase.purchase.item_id, purchase.purchase.quantity) == ("sword", 2)
    assert purchase.purchase.total_price == 2 * purchase.purchase.unit_price
    guild = stub.game.JoinGuild(
        pb.JoinGuildRequest(player_id="alice", guild_id="mascots"), timeout=DEADLINE
    )
    return [session.receipt, purchase.receipt, guild.receipt]


def responses(stub, **request):
    """All messages of a stream that ends when it has caught up."""
    request = stub.pb.StreamEventsRequest(stop_when_caught_up=True, **request)
    return list(stub.feed.StreamEvents(request, timeout=DEADLINE))


def actions(messages):
    """The delivered events; refused actions, which are best effort, left out."""
    delivered = [event for message in messages for event in message.batch.events]
    return [d for d in delivered if d.event.event_type != "request_rejected"]


def ids(messages):
    return [delivered.event.event_id for delivered in actions(messages)]


def test_a_receipt_says_where_the_event_is(stub, receipts):
    delivered = actions(responses(stub, start_position=stub.pb.START_POSITION_EARLIEST))
    places = [(d.event.event_id, d.partition, d.offset) for d in delivered]
    assert places == [(r.event_id, r.partition, r.offset) for r in receipts]


def test_the_feed_has_what_was_done_in_order(stub, receipts):
    messages = responses(stub, start_position=stub.pb.START_POSITION_EARLIEST)
    assert messages[0].HasField("opened")
    assert any(message.HasField("caught_up") for message in messages)
    assert all(message.cursor for message in messages)
    events = [delivered.event for delivered in actions(messages)]
    assert [event.event_type for event in events] == [
        "session_started",
        "item_purchased",
        "guild_joined",
    ]
    assert {event.player_id for event in events} == {"alice"}
    assert events[0].session_started.session_id == receipts[0].event_id
    assert (events[1].item_purchased.item_id, events[1].item_purchased.quantity) == ("sword", 2)
    assert events[2].guild_joined.guild_id == "mascots"
    assert not any(event.HasField("origin") for event in events)


def test_a_filter_picks_events(stub, receipts):
    messages = responses(
        stub,
        start_position=stub.pb.START_POSITION_EARLIEST,
        filter=stub.pb.EventFilter(guild_ids=["mascots"]),
    )
    assert ids(messages) == [receipts[2].event_id]


def test_a_cursor_continues_behind_what_was_seen(stub, receipts):
    # From a receipt …
    assert ids(responses(stub, after_cursor=receipts[1].cursor)) == [receipts[2].event_id]
    # … and from each message of a stream.
    earliest = stub.pb.START_POSITION_EARLIEST
    everything = ids(responses(stub, start_position=earliest))
    seen, cursor = [], None
    while len(seen) < len(everything):
        start = {"after_cursor": cursor} if cursor else {"start_position": earliest}
        types = ["session_started", "item_purchased", "guild_joined"]
        one = responses(
            stub, max_events=1, filter=stub.pb.EventFilter(event_types=types), **start
        )
        assert len(ids(one)) == 1
        seen += ids(one)
        cursor = one[-1].cursor
    assert seen == everything


def test_a_refused_purchase_says_all_that_is_wrong(stub, receipts):
    request = stub.pb.PurchaseItemRequest(player_id="alice", item_id="moon", quantity=0)
    code, details = refused(stub.game.PurchaseItem, request)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details["ErrorInfo"].domain == "herald"
    assert details["ErrorInfo"].reason == "VALIDATION_FAILED"
    violations = details["BadRequest"].field_violations
    assert {violation.field for violation in violations} == {"item_id", "quantity"}
    assert all(violation.description for violation in violations)


def test_a_refused_purchase_buys_nothing(stub, receipts):
    types = stub.pb.EventFilter(event_types=["item_purchased"])
    messages = responses(
        stub, start_position=stub.pb.START_POSITION_EARLIEST, filter=types
    )
    assert ids(messages) == [receipts[1].event_id]


def test_bytes_that_are_no_cursor_are_refused(stub):
    request = stub.pb.StreamEventsRequest(after_cursor="not a cursor")
    code, details = refused(lambda *a, **k: list(stub.feed.StreamEvents(*a, **k)), request)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details["ErrorInfo"].reason == "CURSOR_MALFORMED"


def test_reflection_lists_the_services(stub):
    services = ProtoReflectionDescriptorDatabase(stub.channel).get_services()
    assert {"game.v1.GameService", "game.v1.EventFeedService"} <= set(services)
    assert "grpc.health.v1.Health" in services
