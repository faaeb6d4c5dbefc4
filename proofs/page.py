"""The page takes a thousand events a second: none missed, memory bounded, frames in time.

Chromium has the page of a server open, on the embedded log and on Kafka. A burst of events fills
its list; then they come at an even rate. The page is left alone for a minute, then paused and
resumed, then it gets a filter and loses it again. Whatever it takes is written down in each of
its frames, and compared with the log. How fast it was counts in full size only, which takes a
release build on a quiet machine.
"""

import concurrent.futures
import json
import pathlib
import tempfile
import time

import brokers
import browsing
import calling
import checks
import recording
import running

# Times in seconds. The page is left alone for so many `spans` of `span` each, then paused for
# `pause`, and it has a filter as long. Events come for `load`, which is longer than all of it.
SIZES = {
    "small": {"rate": 500, "spans": 1, "span": 2, "pause": 1, "load": 7, "gates": False},
    "full": {"rate": 1_000, "spans": 4, "span": 15, "pause": 5, "load": 105, "gates": True},
}  # fmt: skip

# How many rows the page keeps, by web/src/ring.ts, and a burst that is more than that.
KEPT_ROWS = 10_000
BURST = 11_000

# The list shows 23 rows at the height of the window, and has six more at either edge.
MOST_ROWS_DRAWN = 40

# Elements and their texts: index.html has some 400, and a row nine.
MOST_NODES = 1_000

# The page without events takes 3 MB, and a row with a purchase 500 bytes; it may take 1,000.
MOST_HEAP_BYTES = 13_000_000

# From the first look at the page's memory to the last there come 45,000 events. Eight bytes kept
# of each of them would be more; in its process, outside the objects, what came over the wire.
MOST_GROWTH_BYTES = 350_000
MOST_PROCESS_GROWTH_BYTES = 10_000_000

# What the generator cannot send in time it sends as soon as it can.
LEAST_OF_RATE = 0.99

# Twenty frames a second still are a movement.
MOST_FRAME_MS = 50

# Of one core, by the page's own thread: the rest is for who uses it.
MOST_BUSY_SHARE = 0.5

# How long the server may take to answer, and the page to show what it is to show.
PATIENCE_SECONDS = 120


class Run:
    """The page of one server, and what came of it."""

    def __init__(self, options, server, page):
        self._options = options
        self._server = server
        self._page = page
        self._recorder = recording.Recorder(page)

    def written(self):
        """How many events are in the log."""
        connection = calling.Connection(self._server.url)
        ends = connection.end_offsets(PATIENCE_SECONDS)
        connection.close()
        return sum(ends.values())

    def memory(self):
        """What the page holds."""
        return self._recorder.memory()

    def fill(self):
        """Writes the burst, and waits until the page has it."""
        write = ["bench", "write", "--server", self._server.url, "--requests", BURST]
        running.herald(*write)
        self._page.has_read(BURST)

    def send(self):
        """Writes events at an even rate: the report of who does it."""
        rate, seconds = f"--rate={self._options['rate']}", f"--seconds={self._options['load']}"
        return json.loads(
            running.herald(
                "bench", "fanout", "--server", self._server.url, "--subscribers=1",
                "--connections=1", "--warmup=0", "--idle=1", "--json", rate, seconds,
            )
        )  # fmt: skip

    def alone(self):
        """Lets events come, span after span, with a look at the memory after each."""
        written = self.written()
        running.wait_until(lambda: self.written() > written, PATIENCE_SECONDS, "events")
        return [self._span() for _ in range(self._options["spans"])]

    def _span(self):
        self._recorder.take()
        written, busy, begun = self.written(), self._recorder.busy_seconds(), time.monotonic()
        time.sleep(self._options["span"])
        recorded = self._recorder.take()
        took = time.monotonic() - begun
        written, busy = self.written() - written, self._recorder.busy_seconds() - busy
        return {
            "events_per_second": round(written / took, 1),
            "busy_share": round(busy / took, 3),
            "recorded": recorded,
            "memory": self.memory(),
        }

    def pause(self):
        """Pauses and resumes."""
        self._page.get_by_role("button", name="Pause").click()
        self._page.is_in("paused")
        self._page.evaluate(browsing.DRAWN)
        self._recorder.take()
        written = self.written()
        time.sleep(self._options["pause"])
        if rows := self._recorder.take()["rows"]:
            raise checks.Broken(f"{len(rows)} rows came while the page was paused")
        written = self.written() - written
        resume = self._page.get_by_role("button", name="Resume")
        return {"written_meanwhile": written} | self._catching_up(resume.click)

    def filter(self):
        """Applies a filter and takes it off again; the player, and what came of it."""
        player = self._page.locator(".row .player").first.text_content()
        on = self._catching_up(lambda: self._page.filter(player=player))
        time.sleep(self._options["pause"])
        off = self._catching_up(self._page.get_by_role("button", name="Clear").click)
        return player, {"on": on, "off": off}

    def _catching_up(self, act):
        """Does something after which the page reads what it lacks."""
        self._recorder.take()
        begun = time.monotonic()
        act()
        self._page.is_in("live")
        took = time.monotonic() - begun
        return {"seconds_to_live": round(took, 2)} | figures(self._recorder.take())

    def compare(self, player):
        """What the page took is what is in the log; how many events each time."""
        events = checks.logged(running.whole_log(self._server.url))
        self._page.has_read(len(events))
        self._recorder.take()
        taken = self._recorder.taken
        if len(taken) != 3:
            raise checks.Broken(f"the page began anew {len(taken) - 1} times, and not twice")
        before, filtered, after = taken
        checks.check_taken(before, events)
        of_player = [event for event in events if event.player_id == player]
        checks.check_taken(filtered, of_player)
        known = set(before).intersection(event.event_id for event in of_player)
        if missing := known.difference(filtered):
            raise checks.Broken(f"the filter leaves out {missing}")
        checks.check_taken(after, events)
        if len(after) != len(events):
            raise checks.Broken(f"the page took {len(after)} of {len(events)} events")
        self._look(after[: -KEPT_ROWS - 1 : -1])
        return {"log": len(events), "taken": [len(each) for each in taken]}

    def _look(self, kept):
        """What is to be seen at either end of the list are these events."""
        newest = self._page.drawn_rows()
        self._page.locator("#list").press("End")
        oldest = self._page.drawn_rows()
        if not newest or newest != kept[: len(newest)]:
            raise checks.Broken(f"the newest that came are not to be seen, but {newest}")
        if not oldest or oldest != kept[-len(oldest) :]:
            raise checks.Broken(f"the oldest that are kept are not to be seen, but {oldest}")


def figures(recorded):
    """Recorded times in numbers, in milliseconds."""
    long_tasks = recorded["longTasks"]
    return {
        "frame_ms": percentiles(recorded["frames"]),
        "long_tasks": {"count": len(long_tasks), "ms": round(sum(long_tasks))},
    }


def percentiles(numbers):
    ordered = sorted(numbers)
    if not ordered:
        return None
    parts = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1}
    at = {name: ordered[int(part * (len(ordered) - 1))] for name, part in parts.items()}
    return {"count": len(ordered)} | {name: round(each, 1) for name, each in at.items()}


def measure(options, log):
    """The page of a new server with this log; what was measured."""
    # Whatever goes wrong, the server ends before the load is waited for, and ends that.
    with (
        concurrent.futures.ThreadPoolExecutor(1) as pool,
        running.Server(log, "--access-log", "off") as server,
        browsing.Browser() as browser,
        browser.page(server.url) as page,
    ):
        page.is_in("live")
        run = Run(options, server, page)
        empty = run.memory()
        run.fill()
        load = pool.submit(run.send)
        spans = run.alone()
        pause = run.pause()
        player, filtered = run.filter()
        is_under_load = load.running()
        sent = load.result()
        events = run.compare(player)
    if events["log"] != BURST + sent["total"]["events_sent"]:
        raise checks.Broken(f"{sent['total']} were sent after {BURST}, {events} are there")
    recorded = [span.pop("recorded") for span in spans]
    everything = {name: sum((each[name] for each in recorded), []) for name in recorded[0]}
    return {
        "events": events,
        "empty": empty,
        "under_load_to_the_end": is_under_load,
        "load": sent["phases"][0],
        "alone": figures(everything) | {"age_ms": percentiles(everything["ages"])},
        "spans": spans,
        "pause": pause,
        "filter": filtered,
    }


def gates(options, measured):
    """What depends on neither speed nor time, and the rest in full size."""
    spans = measured["spans"]
    memory = {name: [span["memory"][name] for span in spans] for name in spans[0]["memory"]}
    yield gate("rows in the document", max(memory["rows_drawn"]), most=MOST_ROWS_DRAWN)
    yield gate("elements and texts in the document", max(memory["nodes"]), most=MOST_NODES)
    yield gate("objects of the page, bytes", max(memory["heap_bytes"]), most=MOST_HEAP_BYTES)
    if not options["gates"]:
        return
    growth = memory["heap_bytes"][-1] - memory["heap_bytes"][0]
    yield gate("growth of these, bytes", growth, most=MOST_GROWTH_BYTES)
    growth = memory["process_bytes"][-1] - memory["process_bytes"][0]
    yield gate("growth of its process, bytes", growth, most=MOST_PROCESS_GROWTH_BYTES)
    rate = min(span["events_per_second"] for span in spans)
    yield gate("events a second", rate, least=LEAST_OF_RATE * options["rate"])
    yield gate("under load to the end", measured["under_load_to_the_end"], least=True)
    busy = max(span["busy_share"] for span in spans)
    yield gate("CPU time of the page, of one core", busy, most=MOST_BUSY_SHARE)
    frames = measured["alone"]["frame_ms"]
    yield gate("frame, 95th percentile, ms", frames["p95"], most=MOST_FRAME_MS)


def gate(what, measured, most=None, least=None):
    if most is not None:
        return {"what": what, "at most": most, "measured": measured, "met": measured <= most}
    return {"what": what, "at least": least, "measured": measured, "met": measured >= least}


def proof(options):
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        runs["embedded"] = measure(options, folder / "log")
        with brokers.Kafka(folder / "kafka", "--roomy") as kafka:
            if options["gates"]:
                kafka.warm_up()
            # Not the topic that the warm-up has filled.
            log = ["--kafka-brokers", kafka.addresses, "--topic", "page"]
            runs["kafka"] = measure(options, log)
    found = [{"log": log} | each for log, run in runs.items() for each in gates(options, run)]
    return {"gates": found, "runs": runs}


if __name__ == "__main__":
    running.prove("page", SIZES, proof)
