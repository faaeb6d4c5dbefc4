"""An export that is killed again and again leaves no half file, loses no row and doubles none.

Somebody buys all the time, on Kafka and on an embedded log. Each destination has a cursor file:
each export into it goes on where the last one ended. Exports are killed with SIGKILL at moments
drawn from a seed: right at their start, anywhere in their run, and while they commit, which the
file beside the cursor tells. Small files make a run commit several times.

After each kill every visible file is whole, none has changed that was there before, and no row is
there twice. After each run that came to its end, no row is missing either, of all partitions up to
where it read. In the end each destination, be it a folder, a bucket of S3 or HDFS, has the events
that `herald tail` gives, each once and at its place.
"""

import collections
import contextlib
import hashlib
import pathlib
import random
import signal
import subprocess
import tempfile
import time

import pyarrow as pa
import pyarrow.compute as pc

import brokers
import checks
import destinations
import exporting
import load
import mixture
import running

# How often an export is killed, by log and destination; and how many events are written before
# each, beside those that come all the time.
SIZES = {
    "small": {
        "seed": 1, "grow": 12_000,
        "kills": {"kafka, folder": 1, "embedded, folder": 1, "kafka, s3": 1, "kafka, hdfs": 1},
    },
    "full": {
        "seed": 1, "grow": 60_000,
        "kills": {"kafka, folder": 20, "embedded, folder": 15, "kafka, s3": 8, "kafka, hdfs": 7},
    },
}  # fmt: skip

# The smallest that is allowed: without compression some 8,000 events.
FLAGS = ["--file-size", "1MiB", "--compression", "none"]

# So many players beside those who buy do a bit of everything, so that a commit has a file for
# each type.
PLAYERS = 5

# Writers that go on all the time: so light that the exports come to an end.
WRITER = ["--seconds", 86_400, "--warmup", 0, "--players", 50, "--connections", 1]
WRITER += ["--in-flight", 2]

# An export that came to its end too soon was not killed: so many more are started at the most,
# for each kill.
MOST_RUNS_A_KILL = 10

# How an export is killed: at a moment drawn from the seconds after its start, from as long as the
# last whole one took, or from the seconds after it began a commit, of which up to so many go well
# before.
WAYS = ["start", "anywhere", "commit", "commit"]
START_SECONDS = 0.3
FIRST_SECONDS = 2
COMMIT_SECONDS = 0.01
COMMITS = 1

# How often it is looked whether a commit has begun.
PAUSE_SECONDS = 0.0005


class Log:
    """A log that is written to all the time."""

    def __init__(self, flags, server, writer):
        self.flags = flags
        self.server = server
        self.writer = writer
        # How often it has grown by some files.
        self.grown = 0

    def grow(self, events):
        self.grown += 1
        mixture.play(self.server.url, range(PLAYERS))
        running.herald("bench", "write", "--server", self.server.url, "--requests", events)


class Case:
    """One log and one destination, with all that was seen there."""

    def __init__(self, name, log, destination, cursor_file, draw):
        self.name = name
        self.log = log
        self.destination = destination
        self.counts = collections.Counter()
        self._draw = draw
        self._cursor_file = cursor_file
        self._pending = cursor_file.with_name(f"{cursor_file.name}.pending")
        self._seconds = FIRST_SECONDS
        # How often the log had grown by the last whole one.
        self.exported = 0
        # Size and places of each file that was visible once.
        self._files = {}

    def flags(self):
        out = ["--out", self.destination.url, "--cursor-file", self._cursor_file]
        return [*self.log.flags, *out, *FLAGS]

    def killed(self):
        """Starts an export and kills it; says when, or None if it came to its end before."""
        way = self._draw.choice(WAYS)
        begun = time.monotonic()
        with tempfile.TemporaryFile("w+") as complaints, subprocess.Popen(
            [running.binary(), "export", *map(str, self.flags())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            env=running.environment() | self.destination.env,
        ) as process:
            self._wait_for(way, process)
            seconds = round(time.monotonic() - begun, 3)
            in_commit = self._pending.exists()
            process.kill()
            process.wait()
            complaints.seek(0)
            said = complaints.read()
        if process.returncode not in (0, -signal.SIGKILL):
            raise checks.Broken(f"{self.name}: ended with {process.returncode}:\n{said}")
        self.look()
        if process.returncode == 0:
            self.exported = self.log.grown
            self.counts["ended before it was killed"] += 1
            return None
        self.counts[f"killed, {way}"] += 1
        self.counts["killed in a commit"] += in_commit
        return {"case": self.name, "way": way, "seconds": seconds, "in_commit": in_commit}

    def _wait_for(self, way, process):
        """Returns at the moment, or when the process has ended."""

        def wait_until(condition):
            while not condition() and process.poll() is None:
                time.sleep(PAUSE_SECONDS)

        seconds = self._seconds if way == "anywhere" else START_SECONDS
        if way == "commit":
            seconds = self._draw.choice([0, COMMIT_SECONDS])
            for _ in range(self._draw.randint(0, COMMITS)):
                wait_until(self._pending.exists)
                wait_until(lambda: not self._pending.exists())
            wait_until(self._pending.exists)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self._draw.uniform(0, seconds))

    def run(self):
        """An export that comes to its end. No row is missing then."""
        begun = time.monotonic()
        self.exported = self.log.grown
        exporting.export(*self.flags(), env=self.destination.env)
        self._seconds = time.monotonic() - begun
        self.counts["whole runs"] += 1
        folder = self.look()
        if not (folder / "_SUCCESS").is_file():
            raise checks.Broken(f"{self.name}: no _SUCCESS after a run that ended well")
        if left := [path for path in (folder / "_herald_temporary").rglob("*") if path.is_file()]:
            raise checks.Broken(f"{self.name}: left by runs that were killed: {left[:3]}")
        if self._pending.exists():
            raise checks.Broken(f"{self.name}: ended in the middle of a commit")
        self.check_complete()

    def check_complete(self):
        """Of each partition all rows are visible, from the first to the last one."""
        offsets = [("offset", "count"), ("offset", "max")]
        for part in self.places().group_by("partition").aggregate(offsets).to_pylist():
            if part["offset_count"] != part["offset_max"] + 1:
                raise checks.Broken(f"{self.name}: rows are missing, {part}")

    def look(self):
        """What is visible is whole, is what it was, and no row is there twice."""
        folder = self.destination.look()
        sizes = {
            path.relative_to(folder): path.stat().st_size
            for path in exporting.visible_files(folder)
        }
        for path, (size, _) in self._files.items():
            if sizes.get(path) != size:
                raise checks.Broken(f"{self.name}: {path} had {size} bytes, now {sizes.get(path)}")
        for path in sizes.keys() - self._files.keys():
            try:
                table = exporting.read(folder / path)
            except (OSError, pa.ArrowInvalid) as error:
                raise checks.Broken(f"{self.name}: {path} is no whole file: {error}") from None
            self._files[path] = sizes[path], table.select(["partition", "offset"])
        rows = self.places().group_by(["partition", "offset"]).aggregate([([], "count_all")])
        if twice := rows.filter(pc.greater(rows["count_all"], 1)).to_pylist():
            raise checks.Broken(f"{self.name}: {len(twice)} rows are there twice, {twice[:1]}")
        return folder

    def places(self):
        """Partition and offset of each row that was visible so far."""
        tables = [table for _, table in self._files.values()]
        return pa.concat_tables(tables) if tables else NOTHING

    def check(self, expected):
        """The rows are the events of the tail, at the same places."""
        found = []
        columns = ["partition", "offset", "event_id"]
        for path in exporting.visible_files(self.destination.look()):
            table = exporting.read(path, columns)
            found += map(row_hash, *(table[name].to_pylist() for name in columns))
        found.sort()
        if found != expected:
            same = len(set(found).intersection(expected))
            raise checks.Broken(
                f"{self.name}: {len(found)} rows, {len(expected)} events in the log, {same} in both"
            )

    def result(self):
        return {"rows": self.places().num_rows, "files": len(self._files)} | self.counts


NOTHING = pa.table({"partition": pa.array([], pa.int32()), "offset": pa.array([], pa.int64())})


def row_hash(partition, offset, event_id):
    row = f"{partition} {offset} {event_id}"
    return hashlib.blake2b(row.encode(), digest_size=8).digest()


def in_log(server):
    """The hashes of all events that the tail gives."""
    return sorted(
        row_hash(event.partition, event.offset, event.event_id)
        for event in map(checks.Logged.of, running.whole_log(server.url))
    )


class Proof:
    def __init__(self, options, folder, later):
        self.options = options
        self.folder = folder
        self._later = later
        self._draw = random.Random(options["seed"])
        kafka = later.enter_context(brokers.Kafka(folder / "kafka"))
        logs = {
            "kafka": self._log("kafka", kafka.log()),
            "embedded": self._log("embedded", ["--data-dir", str(folder / "data")]),
        }
        self.logs = logs
        self.cases = [self._case(name, logs) for name in options["kills"]]

    def _log(self, name, flags):
        server = running.Server(flags, "--access-log", "off", *mixture.RECORD_REFUSALS)
        self._later.enter_context(server)
        writer = load.Load(server, self.folder / f"receipts-{name}", *WRITER)
        return Log(flags, server, self._later.enter_context(writer))

    def _case(self, name, logs):
        log, kind = name.split(", ")
        folder = self.folder / f"case-{log}-{kind}"
        folder.mkdir()
        out, mirror = folder / "out", folder / "mirror"
        if kind == "folder":
            destination = destinations.Folder(out)
        else:
            values = self._later.enter_context(running.started(kind, self.folder / kind))
            make = {"s3": destinations.S3, "hdfs": destinations.Hdfs}[kind]
            destination = make(values, "exported/events", mirror)
        return Case(name, logs[log], destination, folder / "cursor", self._draw)

    def kill(self, case):
        """One kill; then sometimes a run to the end, and sometimes the next kill."""
        for _ in range(MOST_RUNS_A_KILL):
            if case.exported == case.log.grown:
                case.log.grow(self.options["grow"])
            if killed := case.killed():
                if self._draw.random() < 0.5:
                    case.run()
                return killed
        raise checks.Broken(f"{case.name}: each of {MOST_RUNS_A_KILL} exports ended too soon")


def proof(options):
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as later:
        this = Proof(options, pathlib.Path(folder), later)
        turns = [case for case in this.cases for _ in range(options["kills"][case.name])]
        this._draw.shuffle(turns)
        kills = [this.kill(case) for case in turns]
        for log in this.logs.values():
            log.writer.stop()
            # Some in each partition: what nobody waits for any more is in front of them.
            log.grow(1_000)
        expected = {log: in_log(log.server) for log in this.logs.values()}
        for case in this.cases:
            case.run()
            case.check(expected[case.log])
        return {
            "kills": kills,
            "cases": {case.name: case.result() for case in this.cases},
        }


if __name__ == "__main__":
    running.prove("export_kill9", SIZES, proof)
