"""Runs the scenarios of tests/clients/scenarios.py, with the client for threads or, with --asyncio,
with that for asyncio. Both are the same coroutines: calls of the former are made in threads.
"""

import asyncio
import json
import os
import sys
import traceback
import uuid

import grpc

import herald.aio
import herald.client
import herald.tail
from herald.client import HeraldError
from herald.game.v1 import game_pb2 as pb

SERVER = os.environ["HERALD_SERVER"]
RUN = os.environ["HERALD_RUN"]

# What takes longer hangs.
SECONDS = 60
# The purchases around a restart, and after which of them it comes.
PURCHASES, RESTART_AFTER = 30, 10


def say(**what):
    print(json.dumps(what), flush=True)


async def ask(what):
    say(ask=what)
    answer = json.loads(await asyncio.to_thread(sys.stdin.readline))
    assert answer["ok"], answer


class Threaded:
    """The client for threads, called as the one for asyncio is."""

    def __init__(self, server):
        self._client = herald.client.Client(server)
        self.game, self.feed = self._client.game, self._client.feed

    async def call(self, *arguments, **options):
        return await asyncio.to_thread(self._client.call, *arguments, **options)

    async def close(self):
        self._client.close()

    async def tail(self, request):
        responses = herald.tail.tail(self._client, request)
        try:
            while response := await asyncio.to_thread(next, responses, None):
                yield response
        finally:
            await asyncio.to_thread(responses.close)


class Asyncio(herald.aio.Client):
    def tail(self, request):
        return herald.aio.tail(self, request)


async def buy(client, player, item, **more):
    options = {name: more.pop(name) for name in ("deadline", "attempts") if name in more}
    request = pb.PurchaseItemRequest(player_id=f"{RUN}-{player}", item_id=item, **more)
    return await client.call(client.game.PurchaseItem, request, **options)


async def refused(call):
    """The error of what has to fail."""
    try:
        await call
    except HeraldError as error:
        return error
    raise AssertionError("it succeeded")


def expect(error, code, reason):
    assert (error.code, error.reason) == (code, reason), error


async def responses(client, until, **request):
    """What a tail gives, up to the first response that `until` is true of."""
    seen = []
    stream = client.tail(pb.StreamEventsRequest(heartbeat_interval={"seconds": 1}, **request))
    async for response in stream:
        seen.append(response)
        if until(seen):
            break
    await stream.aclose()
    return seen


def events(seen):
    return [delivered.event for response in seen for delivered in response.batch.events]


def ids(seen):
    return [event.event_id for event in events(seen)]


def never(_):
    return False


# ---- the scenarios; each gives its facts


async def purchase(client):
    bought = await buy(client, "purchase", "sword", quantity=2)
    receipt, what = bought.receipt, bought.purchase
    assert receipt.event_id and what.total_price == 2 * what.unit_price > 0, bought
    request = pb.GetPlayerRequest(player_id=f"{RUN}-purchase", at_least_cursor=receipt.cursor)
    player = (await client.call(client.game.GetPlayer, request)).player
    assert {i.item_id: i.quantity for i in player.inventory} == {"sword": 2}, player
    return {"event_id": receipt.event_id, "request_id": receipt.request_id}


async def unknown_item(client):
    error = await refused(buy(client, "purchase", "dragon"))
    expect(error, grpc.StatusCode.INVALID_ARGUMENT, "VALIDATION_FAILED")
    assert [violation.field for violation in error.violations] == ["item_id"], error
    assert not error.retryable and not error.maybe_done


RETRIED = str(uuid.uuid4())


async def retry(client):
    first = await buy(client, "retry", "knife", request_id=RETRIED)
    second = await buy(client, "retry", "knife", request_id=RETRIED)
    assert first.receipt.event_id == second.receipt.event_id
    assert second.receipt.replayed and not first.receipt.replayed
    return {"event_id": first.receipt.event_id}


async def conflict(client):
    error = await refused(buy(client, "retry", "horse", quantity=3, request_id=RETRIED))
    expect(error, grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_CONFLICT")
    assert error.request_id == RETRIED and not error.maybe_done


async def feed_filter(client):
    player = f"{RUN}-filter"
    await buy(client, "filter", "sword")
    joined = pb.JoinGuildRequest(player_id=player, guild_id="owls")
    joined = await client.call(client.game.JoinGuild, joined)
    await buy(client, "filter", "knife")
    wanted = pb.EventFilter(event_types=["guild_joined"], player_ids=[player])
    earliest = pb.START_POSITION_EARLIEST
    seen = await responses(
        client, never, start_position=earliest, filter=wanted, stop_when_caught_up=True
    )
    assert ids(seen) == [joined.receipt.event_id], seen
    assert events(seen)[0].guild_joined.guild_id == "owls"
    return {"event_ids": ids(seen)}


async def resume(client):
    opened, receipts = asyncio.Event(), []

    def until(seen):
        opened.set()
        # Whatever came twice would have come before a heartbeat.
        return len(ids(seen)) >= PURCHASES and seen[-1].HasField("heartbeat")

    wanted = pb.EventFilter(player_ids=[f"{RUN}-resume"])
    reading = asyncio.create_task(responses(client, until, filter=wanted))
    await asyncio.wait(
        [reading, wait := asyncio.create_task(opened.wait())], return_when="FIRST_COMPLETED"
    )
    wait.cancel()
    for number in range(1, PURCHASES + 1):
        receipts.append((await buy(client, "resume", "sword")).receipt.event_id)
        if number == RESTART_AFTER:
            await ask("restart")
    seen = await reading
    assert ids(seen) == receipts, (ids(seen), receipts)
    assert sum(response.HasField("opened") for response in seen) > 1, "it did not reconnect"
    return {"event_ids": receipts}


async def expired_cursor(client):
    first = (await buy(client, "expired", "sword")).receipt
    await buy(client, "expired", "sword")
    await ask("expire")
    error = await refused(responses(client, never, after_cursor=first.cursor))
    expect(error, grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED")
    assert not error.retryable
    news = (await buy(client, "expired", "sword")).receipt.event_id
    wanted = pb.EventFilter(player_ids=[f"{RUN}-expired"])
    earliest = error.metadata["earliest_cursor"]
    seen = await responses(client, ids, after_cursor=earliest, filter=wanted)
    assert ids(seen) == [news], seen
    return {"event_ids": [news]}


async def deadline(client):
    request_id = str(uuid.uuid4())
    await ask("pause")
    try:
        error = await refused(
            buy(client, "deadline", "horse", request_id=request_id, deadline=2, attempts=1)
        )
    finally:
        await ask("resume")
    expect(error, grpc.StatusCode.DEADLINE_EXCEEDED, "WRITE_OUTCOME_UNKNOWN")
    assert error.maybe_done and "may have been carried out" in str(error), error
    receipt = (await buy(client, "deadline", "horse", request_id=request_id)).receipt
    return {"event_id": receipt.event_id, "request_id": receipt.request_id}


async def epoch_change(client):
    cursor = (await buy(client, "epoch", "sword")).receipt.cursor
    await ask("replace")
    error = await refused(responses(client, never, after_cursor=cursor))
    expect(error, grpc.StatusCode.FAILED_PRECONDITION, "FEED_EPOCH_CHANGED")
    assert not error.retryable


SCENARIOS = {
    "purchase": purchase,
    "unknown item": unknown_item,
    "retry": retry,
    "conflict": conflict,
    "feed filter": feed_filter,
    "resume": resume,
    "expired cursor": expired_cursor,
    "deadline": deadline,
    "epoch change": epoch_change,
}


async def main():
    client = Asyncio(SERVER) if "--asyncio" in sys.argv else Threaded(SERVER)
    for name, scenario in SCENARIOS.items():
        try:
            facts = await asyncio.wait_for(scenario(client), SECONDS)
            say(scenario=name, passed=True, facts=facts or {})
        except Exception as error:
            traceback.print_exc()
            say(scenario=name, passed=False, why=repr(error), facts={})
    await client.close()


asyncio.run(main())
