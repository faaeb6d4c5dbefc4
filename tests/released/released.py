"""What each release has put on the wire, byte by byte, which later ones still understand.

`VERSION/schema.binpb` is the schema of that release, and `VERSION/wire.json` has requests as its
clients encode them and the records that its server made of them: as hex, and as JSON for people.
`record.py` makes both when a version is released; they never change afterwards.
"""

import json
import pathlib

from google.protobuf import json_format, message_factory

import stub

FOLDER = pathlib.Path(__file__).parent

# What was sold when it was recorded.
CATALOG = """
currency = "gold"
guilds = ["owls"]

[[items]]
id = "sword"
name = "Sword"
price = 250

[[items]]
id = "knife"
name = "Knife"
price = 40
"""


# START_POSITION_EARLIEST, which every schema has.
EARLIEST = 2


def versions():
    return sorted(path.name for path in FOLDER.iterdir() if (path / "wire.json").exists())


def wire(version):
    return json.loads((FOLDER / version / "wire.json").read_text(encoding="utf-8"))


class Schema:
    """The messages of a schema, as a client knows them that was built with it."""

    def __init__(self, image):
        self._pool = stub.pool(image)

    @classmethod
    def of(cls, version):
        return cls((FOLDER / version / "schema.binpb").read_bytes())

    def message(self, name):
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(f"game.v1.{name}"))

    def method(self, rpc):
        """The classes of request and response of SERVICE/METHOD."""
        service, method = rpc.split("/")
        found = self._pool.FindServiceByName(f"game.v1.{service}").methods_by_name[method]
        return [message_factory.GetMessageClass(d) for d in (found.input_type, found.output_type)]

    def client(self, channel, rpc):
        """A function from the bytes of a request to the response."""
        answer = self.method(rpc)[1]
        make = channel.unary_stream if rpc.endswith("/StreamEvents") else channel.unary_unary
        return make(f"/game.v1.{rpc}", lambda request: request, answer.FromString)


    def log(self, channel, **more):
        """All events of the log, as the feed delivers them."""
        request = self.message("StreamEventsRequest")(
            start_position=EARLIEST, stop_when_caught_up=True, **more
        )
        stream = self.client(channel, "EventFeedService/StreamEvents")
        messages = stream(request.SerializeToString(), timeout=stub.DEADLINE)
        return [d.event for message in messages for d in message.batch.events]


def kept(event):
    """What of an event is the same whenever the action is carried out again, as JSON."""
    return without_volatile(json_format.MessageToDict(event))


# What differs whenever the same is done again, or in another log.
VOLATILE = {
    "acceptTime", "appendTime", "firstSeenTime", "lastSeenTime", "cursor", "earliestCursor",
    "latestCursor", "feedEpoch", "partition", "partitions", "offset", "requestHorizon",
    "checkedThroughOffset", "origin", "catalogVersion",
}  # fmt: skip


def essence(answer):
    """What of an answer is the same whenever the same is asked: of the feed its events, of all
    others what is not volatile; as JSON.
    """
    messages = [answer] if hasattr(answer, "DESCRIPTOR") else list(answer)
    batches = [getattr(message, "batch", message) for message in messages]
    events = [d.event for batch in batches for d in getattr(batch, "events", [])]
    if events:
        return [kept(event) for event in events]
    return without_volatile([json_format.MessageToDict(message) for message in messages])


def without_volatile(value):
    if isinstance(value, dict):
        return {k: without_volatile(v) for k, v in value.items() if k not in VOLATILE}
    return [without_volatile(v) for v in value] if isinstance(value, list) else value
