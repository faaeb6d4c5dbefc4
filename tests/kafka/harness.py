"""A Kafka, a Herald on it, and a subscriber: what all tests here are made of."""

import json
import shlex
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid

import confluent_kafka
import confluent_kafka.admin
import grpc
import grpc_health.v1.health_pb2 as health_pb2
import grpc_health.v1.health_pb2_grpc as health_pb2_grpc

import running
from stub import DEADLINE, INCLUDES, SCHEMA, Stub, code_and_details

# What takes longer hangs. A broker is up in seconds, and so is everything else here.
SECONDS = 60
# How often something is looked at that does not say by itself when it has changed.
PAUSE = 0.1

SCRIPT = running.REPOSITORY / "scripts" / "kafka"

# How clients see what can be wrong.
UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "LOG_UNAVAILABLE")
UNKNOWN = (grpc.StatusCode.DEADLINE_EXCEEDED, "WRITE_OUTCOME_UNKNOWN")
REPLACED = (grpc.StatusCode.FAILED_PRECONDITION, "FEED_EPOCH_CHANGED")
EXPIRED = (grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED")

# What Herald gives its topics.
LOG_CONFIG = {"message.timestamp.type": "LogAppendTime", "retention.ms": "-1"}

# A stalled subscriber has 64 KiB at the most in front of it, and a connection of its own,
# which holds up nobody else.
STALLED_CHANNEL = [
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 64 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
]
# Large enough for a few hundred to be more than what lies between the log and a subscriber
# who stalls: some MiB in librdkafka, far less in the server, the system and the channel.
LARGE_BYTES = 60_000


def until(condition, why, seconds=SECONDS):
    """Waits for a condition, and returns what it gives."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{seconds} s without {why}"
        time.sleep(PAUSE)
    return found


def run(*command, given=b""):
    """What a command writes to stdout, as bytes."""
    done = subprocess.run(
        [str(word) for word in command], input=given, capture_output=True, timeout=SECONDS
    )
    said = done.stderr.decode(errors="replace")
    assert done.returncode == 0, f"{command}: {said}"
    return done.stdout


def decode(value):
    """What stock protoc makes of the value of a record, as text."""
    arguments = ["--decode=game.v1.GameEvent", *INCLUDES, SCHEMA.name]
    return run(sys.executable, "-m", "grpc_tools.protoc", *arguments, given=value).decode()


class Kafka:
    """A cluster, by what scripts/kafka says of it. All calls are those of stock tools."""

    def __init__(self, brokers, **named):
        self.brokers = brokers
        self.named = named
        self.admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": brokers})

    def tool(self, name, *arguments, given=b""):
        """Runs one of Kafka's own tools. Each costs the start of a JVM."""
        words = ["--bootstrap-server", self.brokers, *arguments]
        return run(SCRIPT, "tool", name, *words, given=given).decode()

    def configs(self, words):
        """What `kafka-configs.sh WORDS` does."""
        run(SCRIPT, "tool", "kafka.admin.ConfigCommand", *shlex.split(words))

    def kcat(self, *arguments, given=b""):
        return run("kcat", "-b", self.brokers, "-q", *arguments, given=given)

    def records(self, topic, form):
        """What kcat says of all records of a topic, each as its fields (see kcat -f)."""
        lines = self.kcat("-C", "-t", topic, "-o", "beginning", "-e", "-f", f"{form}\n")
        return [line.split("\t") for line in lines.decode().splitlines()]

    def create(self, topic, partitions=6, **config):
        """Makes a topic, and returns when its partitions have leaders."""
        config = LOG_CONFIG | {name.replace("_", "."): value for name, value in config.items()}
        new = confluent_kafka.admin.NewTopic(topic, partitions, 1, config=config)
        done(self.admin.create_topics([new]))

        def is_led():
            found = self.admin.list_topics(topic, timeout=SECONDS).topics[topic].partitions
            return len(found) == partitions and all(p.leader >= 0 for p in found.values())

        until(is_led, f"leaders for {topic}")

    def delete(self, topic):
        """Deletes a topic, and returns when it is gone."""
        done(self.admin.delete_topics([topic]))
        gone = confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART
        until(
            lambda: self.admin.list_topics(topic, timeout=SECONDS).topics[topic].error == gone,
            f"an end of {topic}",
        )

    def producer(self, **config):
        return confluent_kafka.Producer({"bootstrap.servers": self.brokers} | config)

    def add_partitions(self, topic, count):
        """Makes them `count` in all."""
        done(self.admin.create_partitions([confluent_kafka.admin.NewPartitions(topic, count)]))

    def trim(self, topic, partition, offset):
        """Removes what lies before the offset, as retention does."""
        place = confluent_kafka.TopicPartition(topic, partition, offset)
        done(self.admin.delete_records([place]))

    def put_events(self, topic, partition, events):
        """Writes events as another Herald would, and returns the offsets."""
        records = [(partition, e.player_id.encode(), e.SerializeToString()) for e in events]
        return self.put(topic, records)

    def put(self, topic, records):
        """Writes (partition, key, value) as a stranger would, and returns the offsets."""
        producer = self.producer()
        offsets = {}
        for index, (partition, key, value) in enumerate(records):

            def delivered(error, message, index=index):
                assert error is None, error
                offsets[index] = message.offset()

            producer.produce(topic, value, key, partition, on_delivery=delivered)
        assert producer.flush(SECONDS) == 0
        return [offsets[index] for index in range(len(offsets))]


def done(futures):
    """Waits for what the admin client was asked to do."""
    for future in futures.values():
        future.result(SECONDS)


def event(pb, player, guild="owls"):
    """An event, as another Herald would write it."""
    return pb.GameEvent(
        event_id=str(uuid.uuid4()),
        event_type="guild_joined",
        player_id=player,
        guild_joined=pb.GuildJoined(guild_id=guild),
    )


def large_events(pb, players, count):
    """Events of these players in turn, each of LARGE_BYTES."""
    guild = "o" * LARGE_BYTES
    return [event(pb, players[number % len(players)], guild) for number in range(count)]


def field(number, content):
    """A field of a message, on the wire: one with a length."""
    tag = number << 3 | 2
    return bytes([*varint(tag), *varint(len(content)), *content])


def varint(number):
    while number > 0x7F:
        yield number & 0x7F | 0x80
        number >>= 7
    yield number


class Herald(running.Server):
    """A Herald, and a stub for it."""

    def __init__(self, modules, folder, brokers, topic, *flags):
        self.topic = topic
        flags = ["--kafka-brokers", brokers, "--topic", topic, *flags]
        super().__init__(folder / "never-made", *flags, keep=None, ready=False)
        # It takes actions, or has said that it cannot.
        self.line(r'"writes":true|the log takes no writes', running.READY_SECONDS)
        self.modules = modules
        self.channel = grpc.insecure_channel(self.address)
        self.stalled = []
        self.stub = Stub(modules, self.channel)
        self.pb = self.stub.pb

    def __exit__(self, *error):
        for channel in [self.channel, *self.stalled]:
            channel.close()
        super().__exit__(*error)

    # ---- as a game client

    def buy(self, player, item="sword", **options):
        """Buys something; the receipt."""
        return self.buy_soon(player, item, **options).result().receipt

    def buy_soon(self, player, item="sword", **options):
        """The same, not waited for, of a server that has had the time to read its log."""
        until(self.takes_actions, f"actions; {self.said()}")
        return self.buys(player, item, **options)

    def takes_actions(self):
        return any('"writes":true' in line for line in self.said().splitlines())

    def buys(self, player, item="sword", **options):
        """Tries to buy something, whatever becomes of it."""
        request = self.pb.PurchaseItemRequest(player_id=player, item_id=item)
        return self.stub.game.PurchaseItem.future(request, timeout=DEADLINE, **options)

    def refuses_to_buy(self, player="alice"):
        """The code, the reason and the details with which a purchase fails."""
        return outcome(self.buys(player).exception())

    def buys_again(self, player="alice"):
        """Waits until a purchase succeeds, as a client would; the receipt."""

        def attempt():
            future = self.buys(player)
            return None if future.exception() else future.result().receipt

        return until(attempt, f"a purchase; {self.said()}")

    # ---- as a subscriber

    def subscribe(self, **request):
        """A stream that is read in the background."""
        request.setdefault("heartbeat_interval", {"seconds": 1})
        return Subscription(self.stub, self.pb.StreamEventsRequest(**request))

    def stall(self, **request):
        """A stream of which nothing but the first message is read before `go_on`."""
        self.stalled.append(grpc.insecure_channel(self.address, options=STALLED_CHANNEL))
        stub = Stub(self.modules, self.stalled[-1])
        return Subscription(stub, self.pb.StreamEventsRequest(**request), stalls=True).opened()

    def poll(self, **request):
        """A poll whose answer is waited for elsewhere."""
        return self.stub.feed.PollEvents.future(self.pb.PollEventsRequest(**request))

    def read(self, **request):
        """All that a stream delivers until it has caught up."""
        if "after_cursor" not in request:
            request.setdefault("start_position", self.pb.START_POSITION_EARLIEST)
        subscription = self.subscribe(stop_when_caught_up=True, **request)
        subscription.ends_well()
        return subscription

    def resuming_fails_with(self, cursor):
        return self.subscribe(after_cursor=cursor).fails()

    def bounds(self):
        return self.stub.feed.GetFeed(self.pb.GetFeedRequest(), timeout=DEADLINE)

    # ---- as an operator

    def health(self):
        """The status of both services, as the health service gives them."""
        check = health_pb2_grpc.HealthStub(self.channel).Check
        statuses = set()
        for service in ("game.v1.GameService", "game.v1.EventFeedService"):
            request = health_pb2.HealthCheckRequest(service=service)
            status = check(request, timeout=DEADLINE).status
            statuses.add(health_pb2.HealthCheckResponse.ServingStatus.Name(status))
        return statuses

    def get(self, path):
        """The status and the text at a path of the admin address."""
        try:
            with urllib.request.urlopen(self.admin + path, timeout=DEADLINE) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def is_ready(self):
        return self.get("/ready")[0] == 200

    def becomes_ready(self):
        until(self.is_ready, f"readiness; {self.said()}")
        assert self.health() == {"SERVING"}

    def becomes_unready(self):
        until(lambda: not self.is_ready(), f"an end of readiness; {self.said()}")

    def is_up_and_serves_nothing(self):
        """Lives, says to all who ask that it does not serve, and refuses calls rightly."""
        # Writes and the feed end one after the other.
        until(lambda: self.health() == {"NOT_SERVING"}, f"an end; {self.said()}")
        assert self.get("/live")[0] == 200
        assert self.get("/ready")[0] == 503
        *refusal, details = self.refuses_to_buy()
        assert tuple(refusal) == UNAVAILABLE
        assert details["RetryInfo"].retry_delay.ToNanoseconds() > 0


def complaints(server):
    """What its log has at WARN and ERROR, without the time."""
    lines = [json.loads(line) for line in server.said().splitlines()]
    lines = [line for line in lines if line["level"] in ("WARN", "ERROR")]
    return [json.dumps({**line, "timestamp": None}) for line in lines]


def problem(server):
    """Why its log says that it takes no writes, once it says so."""
    return json.loads(server.line(r"the log takes no writes").string)["reason"]


def outcome(error):
    """The code, the reason and the details of an error."""
    assert error is not None, "it succeeded"
    code, details = code_and_details(error)
    return code, details["ErrorInfo"].reason, details


class Subscription:
    """A stream of the feed, read in the background from its first message on.

    One that stalls reads on when it is told to.
    """

    def __init__(self, stub, request, stalls=False):
        self.pb = stub.pb
        self.messages = []
        self.error = None
        self.ended = False
        self._news = threading.Condition()
        self._reads_on = threading.Event()
        if not stalls:
            self.go_on()
        self._call = stub.feed.StreamEvents(request)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        error = None
        try:
            for message in self._call:
                with self._news:
                    self.messages.append(message)
                    self._news.notify_all()
                self._reads_on.wait()
        except grpc.RpcError as raised:
            error = raised
        with self._news:
            self.error = error
            self.ended = True
            self._news.notify_all()

    def until(self, condition, why, seconds=SECONDS):
        """Waits until a condition holds or the stream ends."""
        with self._news:
            self._news.wait_for(lambda: self.ended or condition(), seconds)
            assert condition(), (
                f"no {why}; error: {self.error}; the last messages: {self.messages[-5:]}"
            )
        return self

    def opened(self):
        """Its start is fixed."""
        return self.until(lambda: self.messages, "first message")

    def gets_a(self, kind):
        """Waits until a message of this kind has come."""
        return self.until(lambda: any(m.HasField(kind) for m in self.messages), kind)

    def gets(self, event_ids):
        """Waits until all these events have come."""
        wanted = set(event_ids)
        return self.until(lambda: wanted <= set(self.ids()), "such events")

    def ends_well(self):
        self.until(lambda: self.ended, "end")
        assert self.error is None, self.error

    def fails(self):
        """Waits for the end, which has to be an error: its code and its reason."""
        self.until(lambda: self.ended, "end")
        return outcome(self.error)[:2]

    def go_on(self):
        self._reads_on.set()
        return self

    def cancel(self):
        self._call.cancel()

    def events(self):
        """What was delivered so far."""
        return [event for message in self.messages for event in message.batch.events]

    def ids(self):
        return [delivered.event.event_id for delivered in self.events()]

    def places(self):
        return [(delivered.partition, delivered.offset) for delivered in self.events()]

    def gaps(self):
        """(partition, reason, records) of each gap so far."""
        return [
            (m.gap.partition, self.pb.GapReason.Name(m.gap.reason), m.gap.missed_records)
            for m in self.messages
            if m.HasField("gap")
        ]

    def cursor(self):
        """The newest one."""
        return self.messages[-1].cursor
