"""Subscribers that leave, come back and stop reading at moments drawn from a seed.

Each keeps an account of what it has processed, and with it the cursor of the last message that
it processed: a real subscriber would do the same. `crowd` runs them.
"""

import array
import collections
import dataclasses
import http.client
import json
import os
import pathlib
import random
import select
import signal
import subprocess
import time

import accounts
import calling
import checks
import running

# A connection to a server that is down, and a stalled subscriber's look at the log, are
# tried so often.
RETRY_SECONDS = 0.1

# The deadline of such a look.
LOOK_SECONDS = 5

# How long a subscriber may be without a stream, wait for the log to grow, or for the last
# event. Far more than is needed.
PATIENCE_SECONDS = 300

# Of so many messages the place behind them is kept, to go back to.
PLACES = 8

# What a tail writes is read in pieces of so many bytes at the most.
PIECE_BYTES = 1 << 16

# The fields of StreamEventsResponse, and those of the request.
OPENED, BATCH, HEARTBEAT, CAUGHT_UP, FELL_BEHIND, GAP, CLOSING = range(2, 9)
START_POSITION, AFTER_CURSOR, FILTER, HEARTBEAT_INTERVAL, STOP_WHEN_CAUGHT_UP = 1, 2, 4, 5, 7
EARLIEST = 2

# A heartbeat a second, the shortest interval there is.
INTERVAL = calling.varint(1 << 3) + calling.varint(1)

# What a stream may end with for a subscriber to come back: the log is away.
AWAY = "UNAVAILABLE LOG_UNAVAILABLE"

# Exit codes of herald tail: done; no server there when it started; ended by SIGTERM, which may
# come before it has got ready for one.
DONE, UNREACHED, TERMINATED = 0, 3, (143, -signal.SIGTERM)

# The ways to leave, to be resumed from. At heartbeats is one more.
WAYS = {"stream": ["leave", "tear", "go back"], "tail": ["leave", "kill"]}
AT_HEARTBEAT = "leave at a heartbeat"

# What the crowd is told.
GOES_ON, SETTLED, ABORTED = range(3)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one subscriber does."""

    number: int
    url: str
    # "stream": a stream of its own, read message by message. "tail": a herald tail.
    by: str
    filter: accounts.Filter
    seed: str
    # Resumes at moments counted in events, drawn evenly from `spread`, and at heartbeats.
    resumes: int
    heartbeat_resumes: int
    spread: int
    # How often it does not read until the log has grown by so many records.
    stalls: int
    stall_records: int
    # For what a tail keeps.
    folder: pathlib.Path

    def who(self):
        return f"subscriber {self.number} ({self.by}: {self.filter})"

    def acts(self):
        """What is done, each with the number of events before it."""
        draw = random.Random(self.seed)
        acts = draw.choices(WAYS[self.by], k=self.resumes) + ["stall"] * self.stalls
        draw.shuffle(acts)
        return [(1 + draw.randrange(self.spread), act) for act in acts]


@dataclasses.dataclass
class Shared:
    """What subscribers and their crowd tell each other. Each number has one writer."""

    state: object
    # By partition, once it is settled.
    ends: object
    # By subscriber: acts to come, records behind it (-1: unknown), whether it does not read.
    left: object
    reached: object
    stalled: object


# What all processes see; set in each of them as it starts.
shared = None


def ends():
    """Where the log ends, once that is settled, as accounts have it."""
    return {partition: end for partition, end in enumerate(shared.ends) if end}


@dataclasses.dataclass
class Report:
    """What became of a subscriber."""

    plan: Plan
    account: accounts.Account
    # How often it did or met what.
    counts: collections.Counter
    stall_seconds: list

    def resumes(self):
        """How often it came back from where it had left by itself."""
        return sum(self.counts[way] for way in [*WAYS[self.plan.by], AT_HEARTBEAT])


class Subscriber:
    """What both kinds share: the plan, and what is shown to the crowd."""

    def __init__(self, plan):
        self.plan = plan
        self.account = accounts.Account()
        self.counts = collections.Counter()
        self.stall_seconds = []
        self._acts = collections.deque(plan.acts())
        # Events until the next one.
        self._until_act = self._acts[0][0] if self._acts else 0

    def report(self):
        return Report(self.plan, self.account, self.counts, self.stall_seconds)

    def took(self, events):
        """Counts events that were processed."""
        self.counts["events"] += events
        self._until_act -= events

    def due_act(self):
        """The act whose moment has come, or None."""
        if not self._acts or self._until_act > 0:
            return None
        act = self._acts.popleft()[1]
        if self._acts:
            self._until_act = self._acts[0][0]
        return act

    def did(self, act):
        self.counts[act] += 1
        shared.left[self.plan.number] = len(self._acts)

    def stall(self):
        """Waits, without reading, until the log has grown."""
        begun = time.monotonic()
        connection = calling.Connection(self.plan.url)
        goal = None
        shared.stalled[self.plan.number] = 1
        while True:
            bounds = connection.end_offsets(LOOK_SECONDS)
            if bounds is not None:
                end = sum(bounds.values())
                goal = goal or end + self.plan.stall_records
                if end >= goal:
                    break
            self.check_patience(begun, f"the log at {goal} records")
            time.sleep(RETRY_SECONDS)
        shared.stalled[self.plan.number] = 0
        connection.close()
        self.stall_seconds.append(round(time.monotonic() - begun, 3))
        self.did("stall")

    def show_place(self):
        if self.plan.filter.is_empty():
            shared.reached[self.plan.number] = sum(self.account.dues().values())

    def is_at_end(self):
        """Whether it was told where the end is, and has come to it."""
        return shared.state.value == SETTLED and self.account.dues() == ends()

    def check_patience(self, begun, what):
        if shared.state.value == ABORTED:
            raise Aborted
        if time.monotonic() - begun > PATIENCE_SECONDS:
            raise TimeoutError(f"not within {PATIENCE_SECONDS} s: {what}")


class Aborted(Exception):
    """Somebody else has failed."""


class StreamSubscriber(Subscriber):
    """Reads streams of its own, over gRPC-web, message by message.

    A message counts as processed when all of it is. The place behind it is its cursor, and
    the account of then.
    """

    def __init__(self, plan):
        super().__init__(plan)
        # Behind the last messages, the newest last. No cursor: the beginning.
        self._places = collections.deque([(None, self.account.copy())], maxlen=PLACES)
        self._draw = random.Random(f"{plan.seed}, places")
        self._heartbeat_resumes = plan.heartbeat_resumes
        self._settled_since = None

    def run(self):
        last = False
        cut_since = None
        while True:
            try:
                with calling.Stream(self.plan.url, self._request(last)) as stream:
                    while (message := stream.next()) is not None:
                        cut_since = None
                        act = self._process(message)
                        if act == "finish":
                            last = True
                        if act == "tear":
                            stream.tear()
                        if act is not None:
                            break
                    answer = "left" if message is not None else stream.answer()
            except TimeoutError:
                raise checks.Broken(f"silent for {calling.STREAM_SILENCE_SECONDS} s") from None
            except (OSError, http.client.HTTPException):
                answer = "cut off"
            if answer == "OK" and last:
                return self.report()
            if answer in ("cut off", AWAY):
                self.counts[answer] += 1
                cut_since = cut_since or time.monotonic()
                self.check_patience(cut_since, "a stream")
                time.sleep(RETRY_SECONDS)
            elif answer != "left":
                raise checks.Broken(f"the stream ended with {answer}")

    def _request(self, last):
        cursor, self.account = self._places[-1][0], self._places[-1][1].copy()
        if cursor is None:
            start = calling.varint(START_POSITION << 3) + calling.varint(EARLIEST)
        else:
            start = calling.text_field(AFTER_CURSOR, cursor)
        filter_ = self.plan.filter.message()
        stop = calling.varint(STOP_WHEN_CAUGHT_UP << 3) + calling.varint(int(last))
        return b"".join(
            (
                start,
                calling.bytes_field(FILTER, filter_) if filter_ else b"",
                calling.bytes_field(HEARTBEAT_INTERVAL, INTERVAL),
                stop,
            )
        )

    def _process(self, message):
        """Takes a message into account; what is to be done behind it, if anything."""
        if shared.state.value == ABORTED:
            raise Aborted
        found = calling.fields(message)
        self.counts["messages"] += 1
        if OPENED in found:
            self._check_start(calling.fields(found[OPENED][0]))
        elif BATCH in found:
            self.took(self._take(calling.fields(found[BATCH][0])))
        elif GAP in found:
            raise checks.Broken(f"a gap: {calling.fields(found[GAP][0])}")
        elif FELL_BEHIND in found:
            self.counts["fell behind"] += 1
        self._places.append((calling.first(found, 1).decode(), self.account.copy()))
        self.show_place()
        if HEARTBEAT in found:
            return self._at_heartbeat(calling.fields(found[HEARTBEAT][0]))
        return self._act()

    def _act(self):
        while act := self.due_act():
            if act == "stall":
                self.stall()
                continue
            if act == "go back":
                for _ in range(self._draw.randrange(1, PLACES)):
                    if len(self._places) > 1:
                        self._places.pop()
            self.did(act)
            return act
        return None

    def _at_heartbeat(self, heartbeat):
        self.counts["heartbeats"] += 1
        if self._heartbeat_resumes > 0:
            self._heartbeat_resumes -= 1
            self.counts[AT_HEARTBEAT] += 1
            return "leave"
        if shared.state.value != SETTLED or self._acts:
            return None
        self._settled_since = self._settled_since or time.monotonic()
        lag = calling.first(heartbeat, 2, 0)
        if lag == 0 and (not self.plan.filter.is_empty() or self.is_at_end()):
            return "finish"
        what = f"the end of the log: at {self.account.dues()} of {ends()}, lag {lag}"
        self.check_patience(self._settled_since, what)
        return None

    def _take(self, batch):
        events = batch.get(1, [])
        all_come = self.plan.filter.is_empty()
        for delivered in map(calling.fields, events):
            event_id = calling.first(calling.fields(calling.first(delivered, 1)), 1)
            place = calling.first(delivered, 2, 0), calling.first(delivered, 3, 0)
            self.account.take(*place, event_id, all_come)
        return len(events)

    def _check_start(self, opened):
        """A stream starts behind what was processed, and leaves nothing out."""
        starts = {}
        for each in map(calling.fields, opened.get(1, [])):
            starts[calling.first(each, 1, 0)] = calling.first(each, 2, 0)
        checks.check_start(self.account, starts, exactly=self.plan.filter.is_empty())


class TailSubscriber(Subscriber):
    """Reads what a `herald tail --cursor-file` writes: HTTP/2, and resumes of its own.

    After a SIGTERM the file is behind the last line, and nothing may come again. After a kill
    it is where it was up to some seconds before, and what lies behind it comes again. It has no
    filter.
    """

    def __init__(self, plan):
        super().__init__(plan)
        self._file = plan.folder / f"cursor-{plan.number}"
        self._notes = plan.folder / f"notes-{plan.number}"
        # By partition, the sum before each offset: to go back to any of them.
        self._sums = collections.defaultdict(lambda: array.array("I", [0]))
        # Partitions of which nothing has come since a kill.
        self._may_go_back = set()
        self._process = None
        self._rest = b""

    def run(self):
        try:
            while self._follow():
                pass
            self._end(signal.SIGTERM)
            self._start("--until-caught-up")
            for _ in self._lines():
                pass
            self._ended([DONE])
        finally:
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
                self._process.wait()
        said = self._said()
        if "gap:" in said:
            raise checks.Broken(f"a gap:\n{said}")
        self.counts["fell behind"] = said.count("fell behind")
        self.counts["cut off"] = said.count("reconnecting") + said.count("cannot reach")
        return self.report()

    def _follow(self):
        """One run up to the next resume; whether there is one more."""
        self._start()
        while True:
            events = self._piece()
            if events is None:
                self._ended([UNREACHED])
                time.sleep(RETRY_SECONDS)
                return True
            self.took(events)
            while act := self.due_act():
                if act == "stall":
                    self.stall()
                elif act == "leave":
                    self._end(signal.SIGTERM)
                else:
                    self._end(signal.SIGKILL)
                    self._may_go_back = set(self._sums)
                if act != "stall":
                    self.did(act)
                    return True
            if not self._acts and self.is_at_end():
                return False

    def _start(self, *flags):
        self._rest = b""
        command = [running.binary(), "tail", "--json", "--from", "earliest", "--heartbeat", "1s"]
        command += ["--cursor-file", self._file, "--server", self.plan.url, *flags]
        with open(self._notes, "a") as notes:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=notes,
                bufsize=0,
                env=running.environment(),
            )
        self._last_piece = time.monotonic()

    def _end(self, how):
        """Ends it, and takes what it had still written."""
        self._process.send_signal(how)
        for events in self._lines():
            self.took(events)
        self._ended([-how, *TERMINATED, UNREACHED])

    def _ended(self, codes):
        if (code := self._process.wait(running.STOP_SECONDS)) not in codes:
            raise checks.Broken(f"a tail ended with {code}:\n{self._said()}")

    def _lines(self):
        while (events := self._piece()) is not None:
            yield events

    def _piece(self):
        """Takes what it has written, if anything; how many events, None at the end."""
        while not select.select([self._process.stdout], [], [], RETRY_SECONDS)[0]:
            self.check_patience(self._last_piece, f"an event behind {self.account.dues()}")
            if shared.state.value == SETTLED:
                return 0
        self._last_piece = time.monotonic()
        piece = os.read(self._process.stdout.fileno(), PIECE_BYTES)
        if not piece:
            self._process.stdout.close()
            return None
        # What a kill has cut off is no line.
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._take(checks.Logged.of(json.loads(line)))
        self.show_place()
        return len(lines)

    def _take(self, event):
        partition = event.partition
        sums = self._sums[partition]
        if partition in self._may_go_back:
            self._may_go_back.remove(partition)
            if event.offset < self.account.due(partition):
                self.counts["repeated after a kill"] += self.account.due(partition) - event.offset
                del sums[event.offset + 1 :]
                self.account.partitions[partition] = (event.offset, event.offset, sums[-1])
        self.account.take(partition, event.offset, event.event_id.encode(), all_come=True)
        sums.append(self.account.partitions[partition][2])

    def _said(self):
        return self._notes.read_text()


KINDS = {"stream": StreamSubscriber, "tail": TailSubscriber}
