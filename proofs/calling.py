"""Calls with known deadlines, each with all that its answer says.

gRPC-web over HTTP/1.1, because that needs nothing but Python: a message in a frame
goes out, a message and the trailers come back in one frame each.
"""

import base64
import concurrent.futures
import http.client
import itertools
import socket
import threading
import time
import urllib.parse
import uuid

import brokers
import checks
import running

CODES = {
    0: "OK",
    1: "CANCELLED",
    2: "UNKNOWN",
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    6: "ALREADY_EXISTS",
    8: "RESOURCE_EXHAUSTED",
    10: "ABORTED",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
    14: "UNAVAILABLE",
}

# After so long beyond its deadline a call counts as not answered at all.
SILENCE_SECONDS = 15

# A subscriber hears something each second, also of a server that has little of the machine.
STREAM_SILENCE_SECONDS = 60

# So many players of each caller that their events are in all partitions: that one of six is
# left out happens once in a thousand million times.
PLAYERS = 128

# What a caller does not do: call again at once after a refusal.
PAUSE_SECONDS = 0.02

# How much a subscriber's end of a connection keeps: so little that a server whose subscriber
# does not read soon has nowhere to write to.
RECEIVE_BYTES = 1 << 14


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def bytes_field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def text_field(number, text):
    return bytes_field(number, text.encode())


def fields(data):
    """The fields of a protobuf message, by number: numbers, and bytes of all else."""
    found, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            value = number()
        else:
            length = {1: 8, 5: 4}.get(tag & 7)
            length = number() if length is None else length
            value = data[at : at + length]
            at += length
        found.setdefault(tag >> 3, []).append(value)
    return found


def first(found, number, default=b""):
    return found.get(number, [default])[0]


def frames(data):
    """The frames of gRPC-web: whether it is the trailers, and the bytes."""
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at + 1 : at + 5], "big")
        yield bool(data[at] & 0x80), data[at + 5 : at + 5 + length]
        at += 5 + length


def framed(message):
    return bytes([0]) + len(message).to_bytes(4, "big") + message


def headers(**more):
    return {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"} | more


def trailers_in(data):
    """The trailers in their frame, names in lower case."""
    lines = (line.split(":", 1) for line in data.decode().splitlines() if line)
    return {name.lower(): value.strip() for name, value in lines}


def outcome(trailers):
    """The code of a call, the reason for it, and whether it says when to come back."""
    status = trailers.get("grpc-status", "no status")
    code = CODES.get(int(status), status) if status.isdigit() else status
    return code, *details(trailers.get("grpc-status-details-bin", ""))


class Connection:
    """One connection, over which one call after the other is made."""

    def __init__(self, url):
        self._address = urllib.parse.urlsplit(url)
        self._http = None

    def purchase(self, player, sequence, deadline):
        """Buys, waiting `deadline` seconds at the most."""
        fields_ = text_field(5, "sword") + varint(6 << 3) + varint(sequence)
        return self._act("PurchaseItem", fields_, player, sequence, deadline)

    def join(self, player, guild, sequence, deadline):
        """Joins a guild, likewise. The event does not have the sequence; the receipt does."""
        return self._act("JoinGuild", text_field(5, guild), player, sequence, deadline)

    def _act(self, method, own_fields, player, sequence, deadline):
        request_id = str(uuid.uuid4())
        message = text_field(1, request_id) + text_field(2, player) + own_fields
        sent = time.monotonic()
        try:
            answer, trailers = self.call(f"/game.v1.GameService/{method}", message, deadline)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            answer, trailers = b"", {"grpc-status": f"no answer: {error}"}
        took = time.monotonic() - sent
        code, reason, retry = outcome(trailers)
        receipt = None
        if code == "OK":
            found = fields(first(fields(answer), 1))
            event_id, partition, offset = first(found, 1), first(found, 6, 0), first(found, 7, 0)
            receipt = checks.Receipt(
                request_id, player, sequence, event_id.decode(), partition, offset
            )
        return checks.Call(request_id, deadline, sent, took, code, reason, retry, receipt)

    def end_offsets(self, deadline):
        """The end of each partition, as the feed tells it; None if it does not."""
        try:
            answer, trailers = self.call("/game.v1.EventFeedService/GetFeed", b"", deadline)
        except (OSError, http.client.HTTPException):
            self.close()
            return None
        if trailers.get("grpc-status") != "0":
            return None
        partitions = map(fields, fields(answer).get(2, []))
        return {first(each, 1, 0): first(each, 3, 0) for each in partitions}

    def tells_bounds(self, deadline):
        """Whether the feed tells its bounds within `deadline` seconds."""
        return self.end_offsets(deadline) is not None

    def call(self, path, message, deadline):
        """The message of the answer, and the trailers."""
        self.send(path, message, deadline)
        response = self._http.getresponse()
        body = response.read()
        trailers = {name.lower(): value for name, value in response.getheaders()}
        answer = b""
        for is_trailers, data in frames(body):
            if is_trailers:
                trailers |= trailers_in(data)
            else:
                answer = data
        return answer, trailers

    def send(self, path, message, deadline):
        """Sends a call, and does not wait for its answer."""
        if self._http is None:
            self._http = http.client.HTTPConnection(self._address.hostname, self._address.port)
        self._http.timeout = deadline + SILENCE_SECONDS
        if self._http.sock is not None:
            self._http.sock.settimeout(self._http.timeout)
        timeout = {"grpc-timeout": f"{round(deadline * 1000)}m"}
        self._http.request("POST", path, framed(message), headers(**timeout))

    def close(self):
        if self._http is not None:
            self._http.close()
        self._http = None


class Stream:
    """One call of StreamEvents, on a connection of its own, which can be left at any moment.

    A connection that breaks is an OSError or an HTTPException, and so is silence for
    STREAM_SILENCE_SECONDS (a TimeoutError).
    """

    def __init__(self, url, request):
        address = urllib.parse.urlsplit(url)
        self._http = http.client.HTTPConnection(address.hostname, address.port)
        # The window is settled when it connects.
        self._http.sock = socket.socket()
        self._http.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self._http.sock.settimeout(STREAM_SILENCE_SECONDS)
        self._response = None
        try:
            self._http.sock.connect((address.hostname, address.port))
            path = "/game.v1.EventFeedService/StreamEvents"
            self._http.request("POST", path, framed(request), headers())
            self._response = self._http.getresponse()
        except BaseException:
            self.close()
            raise
        self._trailers = {name.lower(): value for name, value in self._response.getheaders()}

    def next(self):
        """The bytes of the next message; None when there are no more."""
        while head := self._response.read(5):
            data = self._response.read(int.from_bytes(head[1:], "big"))
            if not head[0] & 0x80:
                return data
            self._trailers |= trailers_in(data)
        return None

    def tear(self):
        """Leaves in the middle of the next message."""
        if head := self._response.read(5):
            self._response.read(int.from_bytes(head[1:], "big") // 2)
        self.close()

    def answer(self):
        """How it ended: the code, and the reason if it has one."""
        return " ".join(filter(None, outcome(self._trailers)[:2]))

    def close(self):
        if self._response is not None:
            self._response.close()
        self._http.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def details(encoded):
    """The reason in a status, and whether it says when to come back."""
    reason, retry = "", False
    status = fields(base64.b64decode(encoded + "=" * (-len(encoded) % 4)))
    for detail in map(fields, status.get(3, [])):
        kind, value = first(detail, 1).decode(), first(detail, 2)
        if kind.endswith("google.rpc.ErrorInfo"):
            reason = first(fields(value), 1).decode()
        retry |= kind.endswith("google.rpc.RetryInfo")
    return reason, retry


class Callers:
    """Threads that buy, each with its own deadline and its own players, until told to stop.

    They do `act` instead if it is given. Player P of thread N is called `NAME-N-P`.
    """

    def __init__(self, url, deadlines, name=None, act=Connection.purchase):
        self.calls = []
        self._act = act
        self._stopping = threading.Event()
        name = name or f"caller-{uuid.uuid4().hex[:8]}"
        pool = concurrent.futures.ThreadPoolExecutor(len(deadlines))
        self._threads = [
            pool.submit(self._run, Connection(url), deadline, f"{name}-{n}")
            for n, deadline in enumerate(deadlines)
        ]
        pool.shutdown(wait=False)

    def _run(self, connection, deadline, name):
        for turn in itertools.count():
            player, sequence = f"{name}-{turn % PLAYERS}", turn // PLAYERS + 1
            # Appending is safe from several threads.
            self.calls.append(self._act(connection, player, sequence, deadline))
            if self._stopping.wait(PAUSE_SECONDS):
                return connection.close()

    def between(self, since, until=float("inf")):
        """The calls that were made and answered in this time."""
        return [c for c in list(self.calls) if since <= c.sent and c.sent + c.took <= until]

    def all_partitions_take_writes(self, seconds):
        """Waits until calls made from now on were acknowledged in each partition.

        Records of one server keep their order, so then all earlier ones are settled too.
        Returns how long it took.
        """
        begun = time.monotonic()

        def all_of_them():
            receipts = [call.receipt for call in self.between(begun) if call.receipt]
            return {receipt.partition for receipt in receipts} == brokers.PARTITIONS

        return running.wait_until(all_of_them, seconds, "acknowledgements in all partitions")

    def stop(self):
        """Waits for the last answers and returns all calls."""
        self._stopping.set()
        for thread in self._threads:
            thread.result()
        return self.calls

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stopping.set()
