"""Clients that do not give up: each request goes out twice, out of order, half of them are
cancelled under way, and all are sent again until it is known what became of them.

One process each, with some connections. What a client is told it writes down as it comes, one
line of JSON for each request, so that whoever runs it sees how far it is.
"""

import concurrent.futures
import dataclasses
import http.client
import json
import multiprocessing
import pathlib
import random
import time
import uuid

import calling
import checks

# The seconds that a call may take; of the pauses before a request is sent again; and how long a
# request may remain without an answer, far more than the server is away.
DEADLINE = 5
PAUSES = (0.02, 0.5)
PATIENCE_SECONDS = 300

# How many requests of a player are under way at a time, in one order or another.
TOGETHER = 8

ITEMS = ["sword", "knife", "horse", "shield", "saddle"]

# What is bought of them is bounded, or needs another.
CATALOG = """
currency = "gold"

[[items]]
id = "sword"
name = "Sword"
price = 100

[[items]]
id = "knife"
name = "Knife"
price = 20

[[items]]
id = "horse"
name = "Horse"
price = 500
max_per_player = 3

[[items]]
id = "shield"
name = "Shield"
price = 75

[[items]]
id = "saddle"
name = "Saddle"
price = 50
requires_item = "horse"
"""
BOUNDS = {"horse": 3}

ACTIONS = {"PurchaseItem": 5, "GrantItem": 1, "ConsumeItem": 2, "JoinGuild": 1}
GUILDS = ["mascots", "owls", "foxes"]

# What ends a request without a receipt, once nothing else of the player's is under way.
REFUSED = "INVALID_ARGUMENT VALIDATION_FAILED"

# The same, when another request has the same id.
CONFLICT = "ALREADY_EXISTS REQUEST_ID_CONFLICT"

# What may be answered meanwhile: the same request is sent again.
UNSETTLED = {
    *checks.NOT_WRITTEN,
    checks.UNKNOWN,
    "ABORTED REQUEST_IN_PROGRESS",
}


@dataclasses.dataclass
class Request:
    """A request, and what became of it."""

    player: str
    action: str
    what: str
    quantity: int
    request_id: str
    # Event id, partition and offset of its receipt, once there is one.
    receipt: tuple | None = None
    refused: bool = False
    # Another request has the same id; it was told so.
    conflicts: bool = False
    sends: int = 0
    replays: int = 0
    # That of its newest receipt.
    cursor: str = ""

    def message(self):
        own = calling.text_field(5, self.what)
        if self.action != "JoinGuild":
            own += calling.varint(6 << 3) + calling.varint(self.quantity)
        return calling.text_field(1, self.request_id) + calling.text_field(2, self.player) + own

    def path(self):
        return f"/game.v1.GameService/{self.action}"

    def gains(self):
        """What the player has more of afterwards, by how much."""
        sign = {"PurchaseItem": 1, "GrantItem": 1, "ConsumeItem": -1}.get(self.action)
        return {} if sign is None or self.receipt is None else {self.what: sign * self.quantity}

    def is_settled(self):
        return self.receipt is not None or self.refused or self.conflicts

    def take(self, answer, trailers, is_strict):
        """Notes an answer. Every receipt of a request has to be the same; of several servers
        that race, only the event has to be.
        """
        code, reason, _ = calling.outcome(trailers)
        said = " ".join(filter(None, (code, reason)))
        if code == "OK":
            found = calling.fields(calling.first(calling.fields(answer), 1))
            event_id, request_id = (calling.first(found, n).decode() for n in (1, 2))
            place = calling.first(found, 6, 0), calling.first(found, 7, 0)
            if request_id != self.request_id:
                raise checks.Broken(f"{self}: a receipt of {request_id}")
            receipt = event_id, *place
            first = self.receipt or receipt
            if first != receipt and (is_strict or first[0] != event_id):
                raise checks.Broken(f"{self}: another receipt, {event_id} at {place}")
            self.receipt = first
            self.cursor = calling.first(found, 3).decode()
            self.replays += calling.first(found, 5, 0)
        self.refused = said == REFUSED
        self.conflicts = said == CONFLICT
        return said


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one process does."""

    number: int
    # The servers; each send goes to any of them.
    urls: tuple
    seed: str
    players: int
    requests: int
    threads: int
    file: pathlib.Path
    # So many requests of a hundred have a twin with the same id and another content.
    twins: int = 0


def requests_of(plan, player):
    draw = random.Random(f"{plan.seed}, {player}")
    for _ in range(plan.requests // plan.players):
        action = draw.choices(list(ACTIONS), ACTIONS.values())[0]
        what = draw.choice(GUILDS if action == "JoinGuild" else ITEMS)
        request_id = str(uuid.UUID(int=draw.getrandbits(128), version=4))
        quantity = 1 if what == "horse" else draw.randint(1, 5)
        yield Request(player, action, what, quantity, request_id)
        if draw.randrange(100) < plan.twins:
            yield Request(player, "GrantItem", "shield", 6, request_id)


class Client:
    """One thread, with the players that it acts for."""

    def __init__(self, plan, thread, tell):
        self._plan = plan
        self._tell = tell
        self._draw = random.Random(f"{plan.seed}, {plan.number}, {thread}")
        self._connections = [calling.Connection(url) for url in plan.urls]
        numbers = range(thread, plan.players, plan.threads)
        self._players = [f"player-{plan.number}-{number}" for number in numbers]
        self.answers = {}

    def run(self):
        for player in self._players:
            requests = list(requests_of(self._plan, player))
            for at in range(0, len(requests), TOGETHER):
                self._carry_out(requests[at : at + TOGETHER])
        for connection in self._connections:
            connection.close()
        return self.answers

    def _carry_out(self, requests):
        """Each twice, in any order, and then until its outcome is known."""
        sends = requests * 2
        self._draw.shuffle(sends)
        for request in sends:
            self._send(request, cancel=self._draw.random() < 0.5)
        begun = time.monotonic()
        while open_ := [r for r in requests if not r.is_settled()]:
            for request in open_:
                self._send(request, cancel=False)
            if time.monotonic() - begun > PATIENCE_SECONDS:
                raise checks.Broken(f"no outcome in {PATIENCE_SECONDS} s: {open_[0]}")
            if not all(r.is_settled() for r in requests):
                time.sleep(self._draw.uniform(*PAUSES))
        # A refusal is final only when nothing else is under way: what was cancelled may have
        # been carried out since.
        for request in requests:
            if request.receipt is None:
                self._ask_again(request)
        for request in requests:
            self._tell(request)

    def _ask_again(self, request):
        begun = time.monotonic()
        while self._send(request, cancel=False) not in ("OK", REFUSED, CONFLICT):
            if time.monotonic() - begun > PATIENCE_SECONDS:
                raise checks.Broken(f"no outcome in {PATIENCE_SECONDS} s: {request}")
            time.sleep(self._draw.uniform(*PAUSES))

    def _send(self, request, cancel):
        request.sends += 1
        connection = self._draw.choice(self._connections)
        try:
            if cancel:
                connection.send(request.path(), request.message(), DEADLINE)
                # Some are gone before they are read, some after.
                time.sleep(self._draw.choice([0, 0, 0.001]))
                connection.close()
                said = "cancelled"
            else:
                answer, trailers = connection.call(request.path(), request.message(), DEADLINE)
                said = request.take(answer, trailers, len(self._connections) == 1)
                if said not in ("OK", REFUSED, CONFLICT, *UNSETTLED):
                    raise checks.Broken(f"{request}: {said}")
        except (OSError, http.client.HTTPException):
            connection.close()
            said = "no answer"
            time.sleep(PAUSES[0])
        self.answers[said] = self.answers.get(said, 0) + 1
        return said


def run(plan):
    """Carries out a plan; how its sends were answered, by answer."""
    with open(plan.file, "w", encoding="utf-8", buffering=1) as file:

        def tell(request):
            file.write(json.dumps(dataclasses.asdict(request)) + "\n")

        with concurrent.futures.ThreadPoolExecutor(plan.threads) as pool:
            clients = [Client(plan, thread, tell) for thread in range(plan.threads)]
            running = [pool.submit(client.run) for client in clients]
            answers = [each.result() for each in running]
    total = {}
    for each in answers:
        for said, count in each.items():
            total[said] = total.get(said, 0) + count
    return total


def read(file):
    """What a plan's requests became."""
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            values = json.loads(line)
            receipt = values.pop("receipt")
            yield Request(**values, receipt=receipt and tuple(receipt))


def start(plans):
    """Runs plans, each in a process of its own: the pool, and what becomes of them."""
    # Not by a fork of this process, which has threads.
    context = multiprocessing.get_context("forkserver")
    pool = concurrent.futures.ProcessPoolExecutor(len(plans), context)
    return pool, [pool.submit(run, plan) for plan in plans]
