"""Whatever clients, the server and Kafka go through: each request happens once.

Clients send every request twice, out of order, cancel half of their calls under way, and send
again until each request has a receipt or is refused for good. Meanwhile the server and Kafka
are killed, at moments drawn from a seed, and started again.

In the end the feed has exactly one event for each request with a receipt, where the receipt
says, and none for any other. Each player has what the receipts add up to, and no more than the
catalogue lets a player have.
"""

import collections
import contextlib
import pathlib
import random
import tempfile
import time

import brokers
import calling
import checks
import persistent
import running

# `faults` come evenly over the requests, at moments drawn from the seed.
SIZES = {
    "small": {"seed": 1, "requests": 3_000, "players": 60, "processes": 1, "threads": 16,
              "faults": ["kill", "kafka", "kill"]},
    "full": {"seed": 1, "requests": 200_000, "players": 2_000, "processes": 3, "threads": 16,
             "faults": ["kill", "kill", "kafka", "kill", "kill", "kafka", "kill"]},
}  # fmt: skip

# How long the server may take to get ready, and the requests between two faults, at the most.
NOTICE_SECONDS = 60
PATIENCE_SECONDS = 900


def plans(options, urls, folder):
    processes = options["processes"]
    for number in range(processes):
        yield persistent.Plan(
            number=number,
            urls=urls,
            seed=str(options["seed"]),
            players=options["players"] // processes,
            requests=options["requests"] // processes,
            threads=options["threads"],
            file=folder / f"requests-{number}",
            twins=options.get("twins", 0),
        )


def inventory(connection, player):
    """What a player has, as the server says it."""
    answer, trailers = connection.call(
        "/game.v1.GameService/GetPlayer", calling.text_field(1, player), NOTICE_SECONDS
    )
    if trailers.get("grpc-status") != "0":
        raise checks.Broken(f"GetPlayer {player}: {calling.outcome(trailers)}")
    found = calling.fields(calling.first(calling.fields(answer), 1))
    items = map(calling.fields, found.get(3, []))
    return {calling.first(item, 1).decode(): calling.first(item, 2, 0) for item in items}


def check_inventories(url, requests):
    """Each player has what the receipts add up to."""
    due = collections.defaultdict(collections.Counter)
    for request in requests:
        if request.receipt:
            due[request.player].update(request.gains())
    connection = calling.Connection(url)
    for player, items in due.items():
        items = {item: count for item, count in items.items() if count}
        has = inventory(connection, player)
        if has != items:
            raise checks.Broken(f"{player} has {has}, and should have {items}")
        for item, most in persistent.BOUNDS.items():
            if has.get(item, 0) > most:
                raise checks.Broken(f"{player} has {has[item]} of {item}, {most} at the most")
    connection.close()
    return len(due)


def check_feed(events, requests):
    """One event for each request with a receipt, where that says; none for any other."""
    found = collections.defaultdict(list)
    for event in events:
        if event.event_type != "request_rejected":
            found[event.request_id].append(event)
    for request in requests:
        places = [(e.event_id, e.partition, e.offset) for e in found.pop(request.request_id, [])]
        if places != [request.receipt] * (request.receipt is not None):
            raise checks.Broken(f"{request}: in the feed {places}")
    if found:
        raise checks.Broken(f"events of no request: {list(found.values())[:3]}")


class Proof:
    def __init__(self, options, folder, kafka):
        self.options = options
        self.kafka = kafka
        self.catalog = folder / "catalog.toml"
        self.catalog.write_text(persistent.CATALOG)
        self.server = self.start("127.0.0.1:0")
        self.restarts = []

    def start(self, listen):
        flags = ["--access-log", "off", "--catalog", self.catalog, "--rejections-per-second", 0]
        return running.Server(self.kafka.log(), *flags, listen=listen)

    def fault(self, way):
        """One fault; how long it took until the server takes actions again."""
        if way == "kill":
            self.server.kill()
            # What it has sent may still be on its way into the log. Until it is there, it and its
            # successor are several servers, of which a player may get one too many of an item.
            self.kafka.wait_for_what_was_sent()
            begun = time.monotonic()
            self.server = self.start(self.server.address)
        else:
            self.kafka.node("kill", 1)
            running.wait_until(lambda: not self.server.is_ready(), NOTICE_SECONDS, "not ready")
            begun = time.monotonic()
            self.kafka.node("start", 1)
        running.wait_until(self.server.is_ready, NOTICE_SECONDS, "ready")
        took = round(time.monotonic() - begun, 3)
        self.restarts.append({"fault": way, "seconds_to_ready": took})


def proof(options):
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as later:
        folder = pathlib.Path(folder)
        kafka = later.enter_context(brokers.Kafka(folder / "kafka"))
        this = Proof(options, folder, kafka)
        later.push(lambda *error: this.server.__exit__(*error))
        planned = list(plans(options, (this.server.url,), folder))
        pool, clients = persistent.start(planned)
        later.enter_context(pool)
        counts = [running.LineCount(plan.file) for plan in planned]

        def wait_for(done):
            def are_there():
                for client in clients:
                    if client.done():
                        client.result()
                return sum(count.now() for count in counts) >= done

            running.wait_until(are_there, PATIENCE_SECONDS, f"{done} requests")

        draw = random.Random(options["seed"])
        each = options["requests"] // (len(options["faults"]) + 1)
        for number, way in enumerate(options["faults"]):
            wait_for(number * each + draw.randrange(each // 2, each))
            this.fault(way)
        answers = sum((collections.Counter(client.result()) for client in clients), start=collections.Counter())
        requests = [request for plan in planned for request in persistent.read(plan.file)]
        players = check_inventories(this.server.url, requests)
        events = checks.logged(running.whole_log(this.server.url))
        checks.check_feed_order(events)
        records = len(kafka.places())
        duplicates = this.server.metric("herald_feed_duplicate_records_total")
    check_feed(events, requests)
    return {
        "requests": len(requests),
        "sends": sum(request.sends for request in requests),
        "with_receipt": sum(request.receipt is not None for request in requests),
        "replays": sum(request.replays for request in requests),
        "refused": sum(request.receipt is None for request in requests),
        "players": players,
        "events": len(events),
        "records": records,
        "duplicates_seen_by_the_last_server": duplicates,
        "answers": dict(sorted(answers.items())),
        "restarts": this.restarts,
    }


if __name__ == "__main__":
    running.prove("exactly_once", SIZES, proof)
