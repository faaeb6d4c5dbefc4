"""What a failed call tells, and what can be done about it."""

from __future__ import annotations

import dataclasses
import random

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

# The domain of Herald's own errors; another one's are a proxy's.
DOMAIN = "herald"

# Reasons with which the same call may succeed later.
RETRIED = {
    "LOG_UNAVAILABLE",
    "OVERLOADED",
    "REQUEST_IN_PROGRESS",
    "STATE_BEHIND",
    "STREAM_DEADLINE",
    "SUBSCRIBER_LIMIT",
    "WRITE_OUTCOME_UNKNOWN",
}
# Codes of errors without a reason with which it may.
RETRIED_CODES = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
}
# Reasons with which an action may have been carried out, or may yet be.
DOUBTFUL = {"WRITE_OUTCOME_UNKNOWN", "REQUEST_IN_PROGRESS"}

# Waits between attempts, in seconds: the first, the longest, and the longest that a server can
# ask for.
FIRST_WAIT = 0.25
LONGEST_WAIT = 15.0
LONGEST_ASKED_WAIT = 300.0


@dataclasses.dataclass(frozen=True)
class Violation:
    """A field that the server refused, by its path as in game.proto, and what is wrong with it."""

    field: str
    description: str


class Local(grpc.RpcError):
    """An error that this library found, which trying again does not mend."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        self._code, self._message = code, message

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._message

    def trailing_metadata(self) -> tuple:
        return ()


class HeraldError(Exception):
    """Why a call failed. Its texts are the server's and may hold anything."""

    code: grpc.StatusCode
    """The status code."""
    reason: str | None
    """Herald's own, such as VALIDATION_FAILED; None when the error is not Herald's."""
    message: str
    """The text of the status."""
    violations: list[Violation]
    """All fields that were refused."""
    metadata: dict[str, str]
    """What else the server says, such as `earliest_cursor`."""
    retry_delay: float
    """Seconds that the server asks to wait; 0.0 when it asks for nothing."""
    retryable: bool
    """Whether the same call may succeed later; an action with the same request id only."""
    request_id: str
    """That of the action, to try again with; empty when the call was none."""
    maybe_done: bool
    """Whether the action may have been carried out all the same, or may yet be."""

    def __init__(self, error: grpc.RpcError, request_id: str = "", in_doubt: bool = False) -> None:
        self.code = error.code()
        self.message = error.details() or ""
        self.reason, self.violations, self.metadata, self.retry_delay = None, [], {}, 0.0
        asked = False
        for detail in _details(error):
            match detail:
                case error_details_pb2.ErrorInfo(domain=domain) if domain == DOMAIN:
                    self.reason, self.metadata = detail.reason, dict(detail.metadata)
                case error_details_pb2.BadRequest():
                    self.violations = [
                        Violation(v.field, v.description) for v in detail.field_violations
                    ]
                case error_details_pb2.RetryInfo():
                    asked = True
                    self.retry_delay = detail.retry_delay.ToNanoseconds() / 1e9
        if self.reason is None:
            self.retryable = self.code in RETRIED_CODES and not isinstance(error, Local)
            # A server that does not know the method has done nothing.
            doubtful = self.code != grpc.StatusCode.UNIMPLEMENTED
        else:
            unavailable = self.code == grpc.StatusCode.UNAVAILABLE
            self.retryable = self.reason in RETRIED or asked or unavailable
            doubtful = self.reason in DOUBTFUL
        self.request_id = request_id
        # What a later attempt is told says nothing of those before.
        self.maybe_done = bool(request_id) and (doubtful or in_doubt)
        super().__init__(self.message)

    def __str__(self) -> str:
        text = f"{self.message} ({self.reason or self.code.name})"
        if self.maybe_done:
            text += (
                "; the action may have been carried out all the same:"
                f" try again with request id {self.request_id}"
            )
        return text


def _details(error: grpc.RpcError) -> list:
    """The details of a status, of the types that count here."""
    kinds = error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo
    found = []
    try:
        status = rpc_status.from_call(error)
        for detail in status.details if status else []:
            for kind in kinds:
                if detail.Is(kind.DESCRIPTOR):
                    found.append(kind.FromString(detail.value))
    except (ValueError, DecodeError):
        # A proxy's, which contradict its code or are none.
        return []
    return found


class Backoff:
    """Waits that double from 250 ms to 15 s, each shortened by chance to between half and all of
    it, so that clients who lost a server together do not come back together.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Starts from the shortest wait again."""
        self._full = FIRST_WAIT

    def next(self, asked: float = 0.0) -> float:
        """The seconds before the next attempt; at least as long as the server asks for."""
        full, self._full = self._full, min(2 * self._full, LONGEST_WAIT)
        return max(full * random.uniform(0.5, 1), min(asked, LONGEST_ASKED_WAIT))

    def obey(self, asked: float) -> float:
        """The seconds after a stream that was closed in order: what the server asks for, which
        spreads its readers; the own wait when it asks for nothing.
        """
        return min(asked, LONGEST_ASKED_WAIT) if asked > 0 else self.next()
