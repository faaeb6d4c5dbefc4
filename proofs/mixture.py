"""Players who do a bit of everything, so that a log has events of every type."""

import concurrent.futures
import multiprocessing
import time
import uuid

import calling
import checks

# What a player does, over and over, each call after the answer to the one before.
ROUND = [
    "StartSession", "PurchaseItem", "JoinGuild", "GrantItem", "ConsumeItem", "PurchaseItem",
    "RefundPurchase", "a refused purchase", "LeaveGuild",
]  # fmt: skip

EVENT_TYPES = {
    "session_started", "item_purchased", "guild_joined", "request_rejected", "guild_left",
    "item_granted", "item_consumed", "purchase_refunded",
}  # fmt: skip

ITEMS = ["sword", "knife", "horse", "shield"]
GUILDS = ["mascots", "owls", "foxes"]

# More than a call takes, in seconds.
DEADLINE = 60

# How many processes and threads play.
PROCESSES = 2
THREADS = 4

# What makes a server record every refusal of these.
RECORD_REFUSALS = ["--rejections-per-second", 1_000_000]


def number_field(number, value):
    return calling.varint(number << 3) + calling.varint(value)


class Player:
    """One player, and what the answers said."""

    def __init__(self, connection, number):
        self._connection = connection
        self._number = number
        self.name = f"mixed-{number}"
        self._session = ""
        self._purchase = ""

    def play(self):
        for turn, action in enumerate(ROUND):
            quantity = 1 + (self._number + turn) % 5
            item = ITEMS[(self._number + turn) % len(ITEMS)]
            guild = calling.text_field(5, GUILDS[self._number % len(GUILDS)])
            match action:
                case "StartSession":
                    answer = self._act(action, b"")
                    self._session = calling.first(answer, 2).decode()
                case "PurchaseItem":
                    own = calling.text_field(5, item) + number_field(6, quantity)
                    receipt = calling.fields(calling.first(self._act(action, own), 1))
                    self._purchase = calling.first(receipt, 1).decode()
                case "GrantItem":
                    own = calling.text_field(5, "sword") + number_field(6, quantity)
                    self._act(action, own + calling.text_field(7, "daily_reward"))
                case "ConsumeItem":
                    self._act(action, calling.text_field(5, "sword"))
                case "RefundPurchase":
                    self._act(action, calling.text_field(5, self._purchase))
                case "JoinGuild" | "LeaveGuild":
                    self._act(action, guild)
                case _:
                    self._act("PurchaseItem", calling.text_field(5, "dragon"), is_refused=True)

    def _act(self, method, own_fields, is_refused=False):
        message = calling.text_field(1, str(uuid.uuid4())) + calling.text_field(2, self.name)
        message += calling.bytes_field(4, self._context()) + own_fields
        path = f"/game.v1.GameService/{method}"
        answer, trailers = self._connection.call(path, message, DEADLINE)
        code, reason, _ = calling.outcome(trailers)
        wanted = ("INVALID_ARGUMENT", "VALIDATION_FAILED") if is_refused else ("OK", "")
        if (code, reason) != wanted:
            raise checks.Broken(f"{self.name}, {method}: {code} {reason}")
        return calling.fields(answer)

    def _context(self):
        client_time = calling.bytes_field(1, number_field(1, int(time.time())))
        context = client_time + calling.text_field(3, "1.4.2") + calling.text_field(4, "android")
        return context + (calling.text_field(2, self._session) if self._session else b"")


def play(url, numbers):
    connection = calling.Connection(url)
    for number in numbers:
        Player(connection, number).play()
    connection.close()


def play_in_threads(url, numbers):
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        parts = [pool.submit(play, url, numbers[n::THREADS]) for n in range(THREADS)]
        for part in parts:
            part.result()


def play_all(url, players):
    """Lets so many players play one round each, and returns when all have."""
    # Not by a fork of this process, which may have threads.
    context = multiprocessing.get_context("forkserver")
    with concurrent.futures.ProcessPoolExecutor(PROCESSES, context) as pool:
        numbers = range(players)
        parts = [
            pool.submit(play_in_threads, url, numbers[n::PROCESSES]) for n in range(PROCESSES)
        ]
        for part in parts:
            part.result()
