"""A Kafka of its own for a proof, started by `scripts/kafka`."""

import json
import subprocess

import checks
import running

TOPIC = "game-events"

# Those that herald makes.
PARTITIONS = set(range(6))


# A broker that has just started is as busy with its own compiler as with its clients: it is
# kept busy for so long before anything is measured in full size.
WARM_UP_SECONDS = 20


class Kafka:
    """A running cluster. Its nodes are numbered from 1."""

    def __init__(self, folder, *flags, brokers=1):
        self._folder = folder
        lines = self._script("start", "--brokers", brokers, *flags)
        self.addresses = running.values(lines)["brokers"]

    def _script(self, *arguments):
        return running.script("kafka", *arguments, "--dir", self._folder)

    def node(self, verb, *numbers):
        """`scripts/kafka node`: start, stop, kill, pause or resume nodes."""
        self._script("node", verb, *numbers)

    def log(self, *flags):
        """What makes a server keep its events here."""
        return ["--kafka-brokers", self.addresses, "--topic", TOPIC, *flags]

    def warm_up(self):
        """Writes as fast as can be for a while."""
        serve = [f"--serve-arg={argument}" for argument in self.log()]
        seconds = ["--seconds", 1, "--warmup", WARM_UP_SECONDS]
        running.herald("bench", "write", "--spawn", "--json", *seconds, *serve)

    def places(self):
        """Partition and offset of each record of the topic, as kcat finds them."""
        done = subprocess.run(
            ["kcat", "-b", self.addresses, "-t", TOPIC, "-C", "-q", "-e", "-f", "%p %o\n"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=running.COMMAND_SECONDS,
        )
        if done.returncode != 0:
            raise RuntimeError(f"kcat ended with {done.returncode}:\n{done.stderr}")
        return [tuple(map(int, line.split())) for line in done.stdout.splitlines()]

    def wait_for_what_was_sent(self):
        """Returns once the topic does not grow from one look to the next: nobody writes any more."""
        before = None
        while (now := len(self.places())) != before:
            before = now

    def records(self):
        """Partition, offset and value of each record of the topic, as kcat finds them."""
        with subprocess.Popen(
            ["kcat", "-b", self.addresses, "-t", TOPIC, "-C", "-q", "-e", "-f", "%p %o %S\n%s"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        ) as kcat:
            for line in kcat.stdout:
                partition, offset, size = map(int, line.split())
                yield partition, offset, kcat.stdout.read(size)
        if kcat.returncode != 0:
            raise RuntimeError(f"kcat ended with {kcat.returncode}")

    def in_sync(self):
        """How many replicas are in sync, by partition, as one of the brokers has it."""
        done = subprocess.run(
            ["kcat", "-b", self.addresses, "-t", TOPIC, "-L", "-J", "-m", "5"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            return {}
        partitions = json.loads(done.stdout)["topics"][0]["partitions"]
        return {each["partition"]: len(each["isrs"]) for each in partitions}

    def stop(self):
        self._script("stop")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def read_log(server, kafka):
    """All events of the topic: as the feed has them, at the places that kcat finds."""
    events = checks.logged(running.whole_log(server.url))
    checks.check_feed_order(events)
    checks.check_places(events, kafka.places())
    return events
