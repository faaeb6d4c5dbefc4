"""The feed over several streams."""

import asyncio
import threading
import time

import grpc
import pytest
from conftest import SECONDS, Server, reason, refusal
from google.rpc import error_details_pb2

import herald.aio
import herald.client
import herald.tail
from herald import errors
from herald.errors import HeraldError
from herald.game.v1 import game_pb2 as pb
from herald.resume import Place


def message(cursor, kind, **fields):
    return pb.StreamEventsResponse(cursor=cursor, **{kind: fields})


def batch(cursor, *event_ids):
    return message(cursor, "batch", events=[{"event": {"event_id": id}} for id in event_ids])


OPENED = message("c0", "opened")
SECOND = {"heartbeat_interval": {"seconds": 0, "nanos": 1}}


def test_a_silent_stream_is_opened_again_behind_the_newest_cursor(client):
    streams = [[OPENED, batch("c1", "a"), None], [None], [OPENED, batch("c2", "b"), None]]
    with Server(*streams) as server:
        seen, _ = client.tail(server, 4, start_position=2, **SECOND)
    assert seen == [OPENED, batch("c1", "a"), OPENED, batch("c2", "b")]
    first, *others = server.requests
    assert first.start_position == pb.START_POSITION_EARLIEST
    assert [request.after_cursor for request in others] == ["c1", "c1"]


def test_what_a_newer_server_says_is_passed_on_and_its_cursor_counts(client):
    # A field of number 99, and a reason of number 77.
    newer = pb.StreamEventsResponse.FromString(b"\x0a\x02c1\x9a\x06\x03new")
    closing = message("c2", "closing", reason=77, resumable=True, reconnect_delay={"nanos": 1})
    with Server([OPENED, newer], [closing], [batch("c3", "a")]) as server:
        seen, _ = client.tail(server, 4)
    assert seen == [OPENED, newer, closing, batch("c3", "a")]
    assert [request.after_cursor for request in server.requests] == ["", "c1", "c2"]


def test_a_closing_is_obeyed(client):
    closing = message("c1", "closing", resumable=True, reconnect_delay={"nanos": 400_000_000})
    began = time.monotonic()
    with Server([OPENED, closing], [batch("c2", "a"), None]) as server:
        seen, _ = client.tail(server, 3)
    assert seen == [OPENED, closing, batch("c2", "a")]
    assert server.requests[1].after_cursor == "c1"
    assert time.monotonic() - began >= 0.4


def test_a_closing_that_is_not_resumable_is_an_error(client):
    closing = message("c1", "closing")
    with Server([OPENED, closing]) as server:
        seen, error = client.tail(server)
    assert seen == [OPENED, closing]
    assert (error.code, error.retryable) == (grpc.StatusCode.FAILED_PRECONDITION, False)


def test_max_events_are_counted_over_all_streams(client):
    streams = [[batch("c1", "a", "b")], [batch("c2", "c"), batch("c3", "d"), None]]
    with Server(*streams) as server:
        seen, error = client.tail(server, max_events=4)
    assert (len(seen), error) == (3, None)
    assert [request.max_events for request in server.requests] == [4, 2]


def test_it_ends_once_it_has_caught_up(client):
    caught_up = message("c1", "caught_up")
    with Server([OPENED], [OPENED, caught_up, None]) as server:
        seen, error = client.tail(server, stop_when_caught_up=True)
    assert (seen, error) == ([OPENED, OPENED, caught_up], None)


def test_errors_are_tried_again_without_an_end_if_that_can_help(client):
    failures = [refusal("UNAVAILABLE"), reason("RESOURCE_EXHAUSTED", "SUBSCRIBER_LIMIT")] * 4
    fatal = error_details_pb2.ErrorInfo(
        reason="CURSOR_EXPIRED", domain="herald", metadata={"earliest_cursor": "e"}
    )
    with Server(*failures, [batch("c1", "a")], refusal("OUT_OF_RANGE", fatal)) as server:
        seen, error = client.tail(server, after_cursor="c0")
    assert seen == [batch("c1", "a")]
    assert (error.reason, error.metadata) == ("CURSOR_EXPIRED", {"earliest_cursor": "e"})
    assert [request.after_cursor for request in server.requests] == ["c0"] * 9 + ["c1"]


def test_only_events_start_the_waits_anew(monkeypatch):
    monkeypatch.setattr(errors, "FIRST_WAIT", 0.25)
    place, full = Place(pb.StreamEventsRequest()), 0.25
    for _ in range(10):
        place.take(OPENED)
        place.take(message("c1", "heartbeat"))
        assert full / 2 <= place.broken() <= full
        full = min(2 * full, 15)
    assert full == 15
    place.take(batch("c2", "a"))
    assert place.broken() <= 0.25


@pytest.mark.parametrize(("seconds", "patience"), [(0, 3), (15, 45), (600, 180), (None, 45)])
def test_the_patience_is_three_heartbeats_of_what_the_server_takes(seconds, patience):
    request = pb.StreamEventsRequest()
    if seconds is not None:
        request.heartbeat_interval.FromSeconds(seconds)
    assert Place(request).patience == pytest.approx(patience)


def test_no_server_can_put_a_client_to_sleep_for_good():
    place = Place(pb.StreamEventsRequest())
    closing = pb.Closing(resumable=True, reconnect_delay={"seconds": 10**9})
    assert place.closed(closing) == 300
    assert errors.Backoff().next(1e9) == 300


def readers():
    return [thread for thread in threading.enumerate() if thread.name == "herald tail"]


def test_a_feed_that_is_left_leaves_nothing_running():
    many = [batch(f"c{number}", "a") for number in range(50)]
    with Server([*many, None]) as server, herald.client.Client(server.url) as client:
        responses = herald.tail.tail(client, pb.StreamEventsRequest())
        next(responses)
        assert readers()
        responses.close()
        for thread in readers():
            thread.join(SECONDS)
        assert not readers()


def test_closing_the_client_ends_its_feeds_with_an_error():
    with Server([OPENED, None]) as server, herald.client.Client(server.url) as client:
        responses = herald.tail.tail(client, pb.StreamEventsRequest())
        assert next(responses) == OPENED
        threading.Timer(0, client.close).start()
        with pytest.raises(HeraldError, match="the client is closed"):
            next(responses)


def test_closing_the_client_ends_its_feeds_with_an_error_in_asyncio_too():
    async def feed(url):
        client = herald.aio.Client(url)
        responses = herald.aio.tail(client, pb.StreamEventsRequest())
        assert await anext(responses) == OPENED
        reading = asyncio.ensure_future(anext(responses))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(HeraldError, match="the client is closed"):
            await asyncio.wait_for(reading, SECONDS)

    with Server([OPENED, None]) as server:
        asyncio.run(feed(server.url))
