"""What the README says of a stream is what grpcurl shows.

Each state is brought about on the embedded log; what only Kafka can show, tests/kafka does.
"""

import contextlib
import re
import shutil
import socket
import sqlite3

import grpc
import pytest

import running
import stub
from readme import CURSOR, FOLLOW, GO_ON, POLL, RESUME, Typed, changed, states, typed

PLAYER = "p" * 128
# Their text is far more than what lies between the server and the end of a pipe.
MANY = 4_000

# The embedded log has no records but Herald's.
ON_KAFKA = {"GAP_REASON_UNDECODABLE"}


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    return stub.modules(tmp_path_factory.mktemp("stub"))


class World:
    """Servers with logs of their own, and events."""

    def __init__(self, modules, folder):
        self._modules = modules
        self.folder = folder

    def server(self, *flags, log="log"):
        return running.Server(self.folder / log, *flags, ready=False)

    def buy(self, server, count=1, player="alice"):
        """Buys that often; the cursor behind the last."""
        running.wait_until(server.is_ready, running.START_SECONDS, "ready")
        with grpc.insecure_channel(server.address) as channel:
            clients = stub.Stub(self._modules, channel)
            request = clients.pb.PurchaseItemRequest(player_id=player, item_id="sword")
            buy = clients.game.PurchaseItem
            calls = [buy.future(request, timeout=stub.DEADLINE) for _ in range(count)]
            return [call.result() for call in calls][-1].receipt.cursor

    @contextlib.contextmanager
    def expired(self):
        """A server, and a cursor behind which retention has removed something."""
        with self.server("--retention-age=1ms") as server:
            cursor = earliest(server)
            with grpc.insecure_channel(server.address) as channel:
                clients = stub.Stub(self._modules, channel)

                def is_trimmed():
                    # Each write gives retention something older to remove.
                    self.buy(server)
                    feed = clients.feed.GetFeed(clients.pb.GetFeedRequest())
                    return feed.partitions[0].start_offset > 0

                running.wait_until(is_trimmed, running.START_SECONDS, "an effect of retention")
            yield server, cursor


@pytest.fixture
def world(modules, tmp_path):
    assert shutil.which("grpcurl"), "grpcurl is missing; scripts/test installs it"
    return World(modules, tmp_path)


def earliest(server):
    """The cursor of which the README says how one gets it."""
    return typed(server, f"{CURSOR}echo $cursor").strip()


def replayed(world):
    with world.server() as server:
        cursor = earliest(server)
        world.buy(server)
        return typed(server, RESUME, cursor)


def heartbeat(world):
    with world.server() as server, Typed(server, FOLLOW) as stream:
        return stream.until("heartbeat").said()


def fell_behind(world):
    with world.server("--feed-ring-bytes=1KiB") as server, Typed(server, FOLLOW) as stream:
        # Then it has been live for a while.
        stream.until("heartbeat").pause()
        world.buy(server, MANY, PLAYER)
        stream.go_on()
        return stream.until("fellBehind").said()


def removed_by_retention(world):
    with world.expired() as (server, cursor):
        return typed(server, GO_ON, cursor)


def skipped(world):
    with world.expired() as (server, cursor):
        return typed(server, changed(GO_ON, "POLICY_EARLIEST", "POLICY_LATEST"), cursor)


def server_stops(world):
    with contextlib.ExitStack() as outlives:
        with world.server() as server:
            stream = outlives.enter_context(Typed(server, FOLLOW)).until("caughtUp")
        return stream.result()


def stream_is_old(world):
    with world.server("--max-stream-age=1s") as server:
        return typed(server, FOLLOW)


def field_is_wrong(world):
    with world.server() as server:
        return typed(server, changed(FOLLOW, '"1s"', '"-1s"'))


def cursor_is_none(world):
    with world.server() as server:
        return typed(server, RESUME, "nonsense")


def cursor_has_expired(world):
    with world.expired() as (server, cursor):
        said = typed(server, RESUME, cursor)
        # The latest one it names is good for sure; retention may have gone on from the other.
        valid = re.search(r'"latest_cursor": "(.*)"', said)[1]
        assert "caughtUp" in typed(server, RESUME, valid)
        return said


def cursor_is_ahead(world):
    with world.server() as server:
        world.buy(server)
    shutil.copytree(world.folder / "log", world.folder / "backup")
    with world.server() as server:
        cursor = world.buy(server)
    with world.server(log="backup") as server:
        return typed(server, RESUME, cursor)


def cursor_of_another_log(world):
    with world.server() as server:
        cursor = earliest(server)
    with world.server(log="another") as server:
        return typed(server, RESUME, cursor)


def origin_is_denied(world):
    with world.server("--expose-origin=no") as server:
        return typed(server, changed(FOLLOW, '"1s"', '"1s", "include_origin": true'))


def too_many_streams(world):
    with world.server("--max-subscribers=1") as server, Typed(server, FOLLOW) as stream:
        stream.until("opened")
        return typed(server, FOLLOW)


def log_is_away(_):
    with socket.socket() as nobody:
        # Bound, and so nobody else's; not listening, and so refused.
        nobody.bind(("127.0.0.1", 0))
        brokers = "127.0.0.1:{}".format(nobody.getsockname()[1])
        with running.Server(["--kafka-brokers", brokers], ready=False) as server:
            return typed(server, FOLLOW)


def log_is_damaged(world):
    with world.server() as server:
        world.buy(server, 3)
    database = world.folder / "log" / "events.sqlite3"
    with contextlib.closing(sqlite3.connect(database)) as events, events:
        events.execute("DELETE FROM partition_0 WHERE offset = 1")
    with world.server() as server:
        return typed(server, FOLLOW)


def deadline_has_come(world):
    with world.server() as server:
        return typed(server, changed(FOLLOW, "grpcurl ", "grpcurl -max-time 1 "))


SHOWN = {
    "opened": replayed,
    "batch": replayed,
    "caughtUp": replayed,
    "heartbeat": heartbeat,
    "fellBehind": fell_behind,
    "GAP_REASON_RETENTION": removed_by_retention,
    "GAP_REASON_SKIPPED": skipped,
    "CLOSING_REASON_SHUTDOWN": server_stops,
    "CLOSING_REASON_MAX_AGE": stream_is_old,
    "VALIDATION_FAILED": field_is_wrong,
    "CURSOR_MALFORMED": cursor_is_none,
    "CURSOR_EXPIRED": cursor_has_expired,
    "CURSOR_AHEAD": cursor_is_ahead,
    "FEED_EPOCH_CHANGED": cursor_of_another_log,
    "SCOPE_DENIED": origin_is_denied,
    "SUBSCRIBER_LIMIT": too_many_streams,
    "LOG_UNAVAILABLE": log_is_away,
    "LOG_DAMAGED": log_is_damaged,
    "STREAM_DEADLINE": deadline_has_come,
}


@pytest.mark.parametrize("state", SHOWN)
def test_a_state_is_seen_as_the_readme_says(world, state):
    said = SHOWN[state](world)
    for word in states()[state]:
        assert word in said, f"no {word!r} in:\n{said}"


def test_the_readme_names_what_the_schema_names():
    schema = stub.SCHEMA.read_text()
    before, _ = schema.split("rpc StreamEvents(")
    errors = before[before.rindex("Errors:") :]
    refusals = re.findall(r"// \* [A-Z_]+, ([A-Z_]+):", errors)
    reasons = re.findall(r"^  ((?:GAP|CLOSING)_REASON_\w+) = [^0]", schema, re.MULTILINE)
    kinds = {"opened", "batch", "heartbeat", "caughtUp", "fellBehind"}
    assert set(states()) == kinds | set(refusals) | set(reasons)
    assert set(states()) == set(SHOWN) | ON_KAFKA


def test_a_poll_says_the_same_in_one_answer(world):
    with world.expired() as (server, cursor):
        policy = '"0s", "expired_cursor_policy": "EXPIRED_CURSOR_POLICY_EARLIEST"'
        said = typed(server, changed(POLL, '"0s"', policy), cursor)
        assert all(word in said for word in ("cursor", "gap", "GAP_REASON_RETENTION"))
        assert "CURSOR_EXPIRED" in typed(server, POLL, cursor)
    with world.server(log="another") as server:
        assert "CURSOR_MALFORMED" in typed(server, POLL, "nonsense")
        cursor = earliest(server)
        nothing = typed(server, POLL, cursor)
        assert "caughtUp" in nothing and "events" not in nothing
        behind = world.buy(server)
        events = typed(server, POLL, cursor)
        assert "events" in events and "caughtUp" in events
        cursor = re.search(r'"cursor": "(.*)"', events)[1]
        assert cursor == behind
        assert "events" not in typed(server, POLL, cursor)
