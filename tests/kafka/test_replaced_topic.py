"""Somebody deletes the topic."""

import threading
import time

import pytest

from harness import REPLACED, SECONDS, UNAVAILABLE, UNKNOWN, event, large_events, outcome

# The topic is looked at every five seconds; the rest is for a busy machine.
NOTICED_SECONDS = 5 + 10

# More than a stalled reader is ahead of what it has read.
LARGE_EVENTS = 200


@pytest.mark.parametrize("events", [3, LARGE_EVENTS + 60], ids=["fewer events", "more events"])
def test_a_topic_made_anew_is_another_feed(kafka, herald, topic, events):
    # Who stalls is behind what such a ring holds, and so reads the topic itself.
    server = herald("--feed-ring-bytes=1MiB")
    epoch = server.bounds().feed_epoch
    old = [server.buy("alice") for _ in range(10)]
    there = old[0].partition
    stranger = {"player_ids": ["stranger-1"]}
    large = large_events(server.pb, ["stranger-0", "stranger-1"], LARGE_EVENTS)
    kafka.put_events(topic, there, large)
    live = server.subscribe().gets_a("caught_up")
    filtered = server.subscribe(filter=stranger).gets_a("caught_up")
    elsewhere = server.subscribe(filter={"player_ids": ["nobody"]}).gets_a("caught_up")
    earliest = {"start_position": server.pb.START_POSITION_EARLIEST}
    from_start = server.subscribe(**earliest)
    known = {receipt.event_id for receipt in old} | {e.event_id for e in large}
    from_start.gets(known)
    behind = [server.stall(**earliest), server.stall(**earliest, filter=stranger)]
    poll = server.poll(max_wait={"seconds": SECONDS})

    kafka.delete(topic)
    kafka.create(topic)
    began = time.monotonic()
    new = [event(server.pb, f"stranger-{number % 2}") for number in range(events)]
    kafka.put_events(topic, there, new)
    for subscription in behind:
        subscription.go_on()

    # All readers are ended. Until the topic was looked at, some may have read on in the new one,
    # if that goes on to where they were.
    may_come = known | ({e.event_id for e in new} if events > LARGE_EVENTS else set())
    for subscription in (live, filtered, elsewhere, from_start, *behind):
        assert subscription.fails() == REPLACED
        assert subscription.gaps() == []
        assert may_come.issuperset(subscription.ids())
    # It may have begun when there was no topic, or may have been answered by the new one.
    if poll.exception() or events <= LARGE_EVENTS:
        assert outcome(poll.exception())[:2] in (REPLACED, UNAVAILABLE)
    # Those behind had not read all of the old one.
    assert not known.issubset(behind[0].ids())
    assert time.monotonic() - began < NOTICED_SECONDS
    # What is of the old one is of no use.
    for cursor in (old[3].cursor, old[-1].cursor, live.cursor(), from_start.cursor()):
        assert server.resuming_fails_with(cursor) == REPLACED
    # The new one is served as any other.
    server.becomes_ready()
    assert server.bounds().feed_epoch != epoch
    seen = server.read()
    assert [delivered.event for delivered in seen.events()] == new
    assert seen.gaps() == []
    again = server.subscribe().opened()
    receipt = server.buy("alice")
    assert (receipt.partition, receipt.offset) == (there, events)
    assert again.gets([receipt.event_id]).ids() == [receipt.event_id]
    assert server.read(after_cursor=seen.cursor()).ids() == [receipt.event_id]
    assert server.read(after_cursor=receipt.cursor).ids() == []


def test_writes_go_on_into_the_new_topic(kafka, herald, topic):
    server = herald()
    server.buy("alice")
    live = server.subscribe().opened()
    answers, stop = [], threading.Event()

    def write():
        while not stop.is_set():
            began = time.monotonic()
            answers.append((began, server.buy_soon("alice")))
            answers[-1][1].exception()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        kafka.delete(topic)
        kafka.create(topic)
        made = time.monotonic()
        assert live.fails() == REPLACED
        server.becomes_ready()
        server.buys_again()
    finally:
        stop.set()
        writer.join()
    # Whatever was acknowledged of what was asked for since then is in the new topic, where
    # its receipt says; and what failed, failed in a way that can be tried again.
    failed = {outcome(call.exception())[:2] for _, call in answers if call.exception()}
    assert failed <= {UNAVAILABLE, UNKNOWN}
    since = [call for began, call in answers if began > made and not call.exception()]
    receipts = [call.result().receipt for call in since]
    assert receipts
    seen = server.read()
    places = dict(zip(seen.ids(), seen.places()))
    for receipt in receipts:
        assert places[receipt.event_id] == (receipt.partition, receipt.offset)
    assert seen.gaps() == []


def test_a_deleted_topic_is_not_made_anew_by_itself(kafka, herald, topic):
    server = herald()
    old = server.buy("alice")
    live = server.subscribe().opened()
    kafka.delete(topic)
    server.becomes_unready()
    server.line(f"topic {topic} is gone; make it again")
    server.is_up_and_serves_nothing()
    kafka.create(topic)
    server.becomes_ready()
    assert live.fails() == REPLACED
    assert server.resuming_fails_with(old.cursor) == REPLACED
    receipt = server.buy("alice")
    assert receipt.offset == 0
    assert server.read().ids() == [receipt.event_id]
