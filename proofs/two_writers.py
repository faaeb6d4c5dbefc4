"""Two servers on one Kafka, raced with the same request ids, show the same events once.

Clients send every request twice, out of order, each time to either server, cancel half of their
calls and send again; some requests share an id with another one of other content. Meanwhile
subscribers start at the cursors of receipts, at either server. Then everybody who reads has the
same: both feeds from the beginning, each feed from each of those cursors on, and what both
servers say that each player has. An event id comes once, and every acknowledged event comes.
"""

import collections
import contextlib
import json
import pathlib
import random
import subprocess
import tempfile

import brokers
import checks
import exactly_once
import persistent
import running

# `starts` is how many cursors are tried at each server.
SIZES = {
    "small": {"seed": 1, "requests": 2_000, "players": 40, "processes": 1, "threads": 16,
              "twins": 10, "starts": 5},
    "full": {"seed": 1, "requests": 100_000, "players": 1_000, "processes": 3, "threads": 16,
             "twins": 10, "starts": 50},
}  # fmt: skip


def feed_from(url, start):
    """What a subscriber gets from a cursor on, to the end."""
    command = [running.binary(), "tail", "--json", "--include-origin", "--from", start]
    done = subprocess.run(
        [*command, "--server", url, "--until-caught-up"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=running.environment(),
        timeout=running.COMMAND_SECONDS,
    )
    if done.returncode != 0:
        raise RuntimeError(f"herald tail ended with {done.returncode}:\n{done.stderr}")
    return checks.logged(map(json.loads, done.stdout.splitlines()))


def by_partition(events):
    parts = collections.defaultdict(list)
    for event in events:
        parts[event.partition].append((event.offset, event.event_id))
    return parts


def check_suffix(events, whole):
    """From a cursor on comes what comes in the whole feed, in each partition."""
    parts = by_partition(events)
    for partition, all_of_it in by_partition(whole).items():
        part = parts[partition]
        if part and part != all_of_it[-len(part) :]:
            raise checks.Broken(f"partition {partition}: not what the whole feed has")


def proof(options):
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as later:
        folder = pathlib.Path(folder)
        kafka = later.enter_context(brokers.Kafka(folder / "kafka"))
        catalog = folder / "catalog.toml"
        catalog.write_text(persistent.CATALOG)
        flags = ["--access-log", "off", "--catalog", catalog, "--rejections-per-second", 0]
        servers = [
            later.enter_context(running.Server(kafka.log(), *flags)) for _ in range(2)
        ]
        for server in servers:
            running.wait_until(server.is_ready, exactly_once.NOTICE_SECONDS, "ready")
        urls = tuple(server.url for server in servers)
        planned = list(exactly_once.plans(options, urls, folder))
        pool, clients = persistent.start(planned)
        later.enter_context(pool)
        answers = sum((collections.Counter(each.result()) for each in clients), start=collections.Counter())
        requests = [request for plan in planned for request in persistent.read(plan.file)]
        whole, other = (checks.logged(running.whole_log(url)) for url in urls)
        checks.check_feed_order(whole)
        checks.check_feed_order(other)
        if by_partition(other) != by_partition(whole):
            raise checks.Broken("the two feeds are not the same")
        acknowledged = {r.receipt[0] for r in requests if r.receipt}
        check_once(whole, acknowledged)
        draw = random.Random(options["seed"])
        with_cursor = [request for request in requests if request.cursor]
        for url in urls:
            for request in draw.sample(with_cursor, options["starts"]):
                check_suffix(feed_from(url, request.cursor), whole)
        players = check_same_inventories(urls, {request.player for request in requests})
        records = len(kafka.places())
    if records == len(whole):
        raise checks.Broken("no record came twice: this shows nothing")
    return {
        "requests": len(requests),
        "sends": sum(request.sends for request in requests),
        "acknowledged": len(acknowledged),
        "conflicts": sum(request.conflicts for request in requests),
        "events": len(whole),
        "records": records,
        "duplicates": records - len(whole),
        "players": players,
        "answers": dict(sorted(answers.items())),
    }


def check_once(events, acknowledged):
    """Each event id comes once, and all that were acknowledged come."""
    counts = collections.Counter(event.event_id for event in events)
    twice = [event_id for event_id, count in counts.items() if count > 1]
    if twice:
        raise checks.Broken(f"{len(twice)} events come more than once, such as {twice[0]}")
    if missing := acknowledged - counts.keys():
        raise checks.Broken(f"{len(missing)} acknowledged events do not come: {min(missing)}")


def check_same_inventories(urls, players):
    """Both servers say the same of each player."""
    connections = [exactly_once.calling.Connection(url) for url in urls]
    for player in sorted(players):
        one, other = (exactly_once.inventory(each, player) for each in connections)
        if one != other:
            raise checks.Broken(f"{player} has {one} by one server, {other} by the other")
    for connection in connections:
        connection.close()
    return len(players)


if __name__ == "__main__":
    running.prove("two_writers", SIZES, proof)
