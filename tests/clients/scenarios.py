"""What clients do when all goes well and when it does not, shown by a program for each.

A real server on Kafka is started, and a program of programs.py, which finds it by HERALD_SERVER.
Its players are those that begin with HERALD_RUN. Both talk in lines of JSON; its stderr is free.
The program asks on stdout, and waits for the answer `{"ok": true}` on stdin:

    {"ask": "restart"}   the server is killed before the answer, and started again behind it
    {"ask": "expire"}    all records so far are removed, and the server knows it
    {"ask": "pause"}     Kafka answers no longer
    {"ask": "resume"}    and answers again
    {"ask": "replace"}   the server is on another topic, and ready

and says after each scenario, in the order of SCENARIOS:

    {"scenario": NAME, "passed": true, "why": "", "facts": {…}}

It goes on after one that failed, and ends with 0. What it says is not believed, but held against
the log and what the server has counted: `facts` has what that needs, the event ids in the log's
order as `event_ids`, one as `event_id`, and the `request_id`.
"""

import contextlib
import json
import queue
import re
import subprocess
import tempfile
import threading
import time
import urllib.request
import uuid

import grpc

import running
from harness import until
from programs import CLIENTS
from stub import DEADLINE, Stub

# The longest that a program may be silent: more than all waits of a scenario together.
SILENT_SECONDS = 120
# The longest that one may take in all.
RUN_SECONDS = 600
# What is shown of its stderr, at the most.
SHOWN_CHARACTERS = 4_000

# How many purchases are made around a restart.
PURCHASES = 30


class World:
    """A server whose address stays the same whatever becomes of it, and of its Kafka."""

    def __init__(self, kafka, modules):
        self._kafka = kafka
        self._modules = modules
        self._paused = False
        self._start_on_new_topic("127.0.0.1:0")
        self.address = self.server.address
        self.url = self.server.url

    def _start_on_new_topic(self, listen):
        self._topic = f"clients-{uuid.uuid4()}"
        self._kafka.create(self._topic)
        self._start(listen)

    def _start(self, listen):
        log = ["--kafka-brokers", self._kafka.brokers, "--topic", self._topic]
        self.server = running.Server(log, listen=listen)

    def kill(self):
        self.server.kill()

    def start(self):
        self._start(self.address)

    def expire(self):
        for place in self._bounds():
            if place.start_offset < place.end_offset:
                self._kafka.trim(self._topic, place.partition, place.end_offset)
        until(
            lambda: all(place.start_offset == place.end_offset for place in self._bounds()),
            "an empty log",
        )

    def _bounds(self):
        with grpc.insecure_channel(self.address) as channel:
            stub = Stub(self._modules, channel)
            return stub.feed.GetFeed(stub.pb.GetFeedRequest(), timeout=DEADLINE).partitions

    def pause(self):
        self._node("pause")
        self._paused = True

    def resume(self):
        self._node("resume")
        self._paused = False

    def _node(self, what):
        running.script("kafka", "node", what, 1, "--dir", self._kafka.named["dir"])

    def replace(self):
        self.kill()
        self._start_on_new_topic(self.address)

    def log_of(self, player):
        """The events of a player that the log holds, refused actions aside."""
        found = (
            delivered["event"] for delivered in running.whole_log(self.url, "--player", player)
        )
        return [event for event in found if event["eventType"] != "request_rejected"]

    def receipt(self, player, request_id):
        """What the server answers to who asks for the receipt of an action."""
        with grpc.insecure_channel(self.address) as channel:
            stub = Stub(self._modules, channel)
            request = stub.pb.GetReceiptRequest(player_id=player, request_id=request_id)
            return stub.game.GetReceipt(request, timeout=DEADLINE).receipt

    def refused_once(self, method, code):
        """Checks that one call of a method has ended with a code since the server was started."""
        # A call is answered before it is counted.
        until(lambda: self._calls(method, code), f"a call of {method} that ends with {code}")
        assert self._calls(method, code) == 1, "it was tried again"

    def _calls(self, method, code):
        with urllib.request.urlopen(f"{self.server.admin}/metrics", timeout=DEADLINE) as answer:
            text = answer.read().decode()
        labels = rf'method="/game\.v1\.{re.escape(method)}",code="{code}"'
        found = re.search(rf"^herald_grpc_calls_total{{{labels}}} (\d+)$", text, re.MULTILINE)
        return int(found[1]) if found else 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._paused:
            self.resume()
        self.kill()


# ---- what must be true besides


def purchase(world, run, facts):
    player = f"{run}-purchase"
    (event,) = world.log_of(player)
    bought = event["itemPurchased"]
    assert (bought["itemId"], bought["quantity"]) == ("sword", 2), event
    assert event["eventId"] == facts["event_id"]
    assert event["origin"]["requestId"] == facts["request_id"]
    assert world.receipt(player, facts["request_id"]).event_id == facts["event_id"]


def unknown_item(world, run, _):
    assert len(world.log_of(f"{run}-purchase")) == 1
    world.refused_once("GameService/PurchaseItem", "INVALID_ARGUMENT")


def retry(world, run, facts):
    (event,) = world.log_of(f"{run}-retry")
    assert event["itemPurchased"]["itemId"] == "knife", event
    assert event["eventId"] == facts["event_id"]


def conflict(world, run, _):
    assert len(world.log_of(f"{run}-retry")) == 1
    world.refused_once("GameService/PurchaseItem", "ALREADY_EXISTS")


def feed_filter(world, run, facts):
    events = world.log_of(f"{run}-filter")
    types = [event["eventType"] for event in events]
    assert types == ["item_purchased", "guild_joined", "item_purchased"]
    assert facts["event_ids"] == [events[1]["eventId"]]


def resume(world, run, facts):
    ids = [event["eventId"] for event in world.log_of(f"{run}-resume")]
    assert len(set(ids)) == len(ids) == PURCHASES
    assert facts["event_ids"] == ids


def expired_cursor(world, run, facts):
    # The others are removed.
    assert facts["event_ids"] == [event["eventId"] for event in world.log_of(f"{run}-expired")]
    assert len(facts["event_ids"]) == 1
    world.refused_once("EventFeedService/StreamEvents", "OUT_OF_RANGE")


def deadline(world, run, facts):
    (event,) = world.log_of(f"{run}-deadline")
    assert event["itemPurchased"]["itemId"] == "horse", event
    assert event["eventId"] == facts["event_id"]
    assert event["origin"]["requestId"] == facts["request_id"]


def epoch_change(world, _run, _facts):
    world.refused_once("EventFeedService/StreamEvents", "FAILED_PRECONDITION")


# Each with what it may ask for, all of that once, and what is checked.
SCENARIOS = {
    "purchase": ([], purchase),
    "unknown item": ([], unknown_item),
    "retry": ([], retry),
    "conflict": ([], conflict),
    "feed filter": ([], feed_filter),
    "resume": (["restart"], resume),
    "expired cursor": (["expire"], expired_cursor),
    "deadline": (["pause", "resume"], deadline),
    "epoch change": (["replace"], epoch_change),
}


# ---- the program


class Broken(Exception):
    """A program that does not do what it has to, so that no more can come of it."""


class Process:
    """A running program, and lines to and from it."""

    def __init__(self, program, environment, complaints):
        self._complaints = complaints
        self._process = subprocess.Popen(
            program.command,
            cwd=CLIENTS / program.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env=running.environment() | environment,
        )
        self._deadline = time.monotonic() + RUN_SECONDS
        self._lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def next(self):
        """What it says next; none once it has ended well."""
        left = max(0, self._deadline - time.monotonic())
        try:
            line = self._lines.get(timeout=min(SILENT_SECONDS, left))
        except queue.Empty:
            raise Broken(
                f"it is silent, or takes longer than {RUN_SECONDS} s: {self.said()}"
            ) from None
        if line is None:
            if code := self._process.wait(running.STOP_SECONDS):
                raise Broken(f"it ended with {code}: {self.said()}")
            return None
        try:
            said = json.loads(line)
            assert isinstance(said, dict)
        except (ValueError, AssertionError):
            raise Broken(f"no object in JSON on its stdout: {line!r}") from None
        return said

    def answer(self):
        try:
            self._process.stdin.write('{"ok": true}\n')
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Broken(f"it takes no answers: {self.said()}") from None

    def said(self):
        """The end of its stderr."""
        self._complaints.seek(0)
        return self._complaints.read()[-SHOWN_CHARACTERS:]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()


def serve(world, process, ask):
    """Does what the program asks for, and answers."""
    match ask:
        case "restart":
            world.kill()
            process.answer()
            world.start()
        case "expire" | "pause" | "resume" | "replace":
            getattr(world, ask)()
            process.answer()
        case _:
            raise Broken(f"it asks for {ask!r}")


def run(program, kafka, modules):
    """What is wrong with each scenario as a program runs them; None where it is right."""
    wrong = {}
    # A word, as ids of players hold it.
    name = f"run{uuid.uuid4().hex[:12]}"
    with World(kafka, modules) as world, tempfile.TemporaryFile("w+") as complaints:
        environment = {"HERALD_SERVER": world.url, "HERALD_RUN": name}
        with Process(program, environment, complaints) as process:
            try:
                for scenario, (asks, check) in SCENARIOS.items():
                    wrong[scenario] = one(world, process, name, scenario, asks, check)
                if said := process.next():
                    raise Broken(f"it says more than is asked for: {said}")
            except Broken as broken:
                for scenario in SCENARIOS:
                    wrong.setdefault(scenario, str(broken))
                # One too many is of no scenario.
                wrong["epoch change"] = wrong["epoch change"] or str(broken)
    return wrong


def one(world, process, name, scenario, asks, check):
    """What is wrong with one scenario."""
    asked = []
    while "scenario" not in (said := process.next() or {"scenario": None}):
        asked.append(said.get("ask"))
        serve(world, process, asked[-1])
    if said["scenario"] != scenario:
        raise Broken(f"{said['scenario']!r} instead of {scenario!r}: {process.said()}")
    if said.get("passed") is not True:
        return f"{said.get('why')}; {process.said()}"
    try:
        assert asked == asks, f"it asked for {asked}"
        check(world, name, said.get("facts") or {})
    except (AssertionError, KeyError, ValueError, TypeError, grpc.RpcError) as error:
        return f"it says that this passed; but {error!r}"
    return None


# ---- the table in clients/README.md

MARKS = ("<!-- scenarios -->\n", "<!-- /scenarios -->")


def table(outcomes):
    """The table of what went well, by client."""
    lines = [["scenario", *outcomes], ["---"] * (len(outcomes) + 1)]
    for scenario in SCENARIOS:
        marks = ["no" if wrong[scenario] else "yes" for wrong in outcomes.values()]
        lines.append([scenario, *marks])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
