"""The place of a feed, over all streams that it takes."""

from __future__ import annotations

import grpc

from herald.errors import Backoff, HeraldError, Local
from herald.game.v1 import game_pb2 as pb

# A stream is dead after so many heartbeat intervals without a message: one may be late, two may
# be lost to a hiccup of the network.
SILENT_INTERVALS = 3
# The interval that the server takes unless told, and the range that it brings others into, in
# seconds.
DEFAULT_HEARTBEAT = 15.0
SHORTEST_HEARTBEAT, LONGEST_HEARTBEAT = 1.0, 60.0


class Place:
    """What has come, and what is to be done next."""

    def __init__(self, request: pb.StreamEventsRequest) -> None:
        self._request = pb.StreamEventsRequest()
        self._request.CopyFrom(request)
        self._backoff = Backoff()
        # None: no end.
        self._left = request.max_events if request.max_events > 0 else None
        self._caught_up = False
        interval = DEFAULT_HEARTBEAT
        if request.HasField("heartbeat_interval"):
            interval = request.heartbeat_interval.ToNanoseconds() / 1e9
        interval = min(max(interval, SHORTEST_HEARTBEAT), LONGEST_HEARTBEAT)
        self.patience = SILENT_INTERVALS * interval
        """How long to wait for a message, in seconds."""

    def request(self) -> pb.StreamEventsRequest:
        """The first request, or the one that goes on behind what has come."""
        return self._request

    def take(self, message: pb.StreamEventsResponse) -> None:
        """Takes a message that is about to be handed over."""
        if message.cursor:
            self._request.after_cursor = message.cursor
        match message.WhichOneof("response"):
            case "batch":
                # Only now: a server that takes connections and then fails is not well.
                self._backoff.reset()
                if self._left is not None:
                    self._left -= len(message.batch.events)
                    self._request.max_events = self._left
            case "caught_up":
                self._caught_up = True
            case "fell_behind":
                self._caught_up = False

    def is_over(self) -> bool:
        """Whether all has come that was asked for."""
        # With 0 left another request would mean "no end".
        nothing_left = self._left is not None and self._left <= 0
        return nothing_left or (self._request.stop_when_caught_up and self._caught_up)

    def closed(self, closing: pb.Closing) -> float:
        """The seconds until the server, which closes the stream, wants to be asked again.
        HeraldError: it cannot be asked for what comes next.
        """
        if not closing.resumable:
            why = "the server closed the stream, and its cursor cannot be used to go on"
            raise HeraldError(Local(grpc.StatusCode.FAILED_PRECONDITION, why))
        return self._backoff.obey(closing.reconnect_delay.ToNanoseconds() / 1e9)

    def broken(self, failed: grpc.RpcError | None = None) -> float:
        """The seconds to wait after a stream that failed, or fell silent, or just ended.
        HeraldError: trying again cannot help.
        """
        error = HeraldError(failed) if failed else None
        if error and not error.retryable:
            raise error
        return self._backoff.next(error.retry_delay if error else 0.0)
