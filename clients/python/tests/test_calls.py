"""Which calls are tried again, and what is said of those that failed."""

import time
import uuid

import grpc
import pytest
from conftest import Server, reason, refusal
from google.rpc import error_details_pb2

from herald import calls
from herald.errors import HeraldError
from herald.game.v1 import game_pb2 as pb

BOUGHT = pb.PurchaseItemResponse(owned_quantity=1)
UNKNOWN = reason("DEADLINE_EXCEEDED", "WRITE_OUTCOME_UNKNOWN")
NOT_WRITTEN = reason("UNAVAILABLE", "LOG_UNAVAILABLE")
LATER = error_details_pb2.RetryInfo(retry_delay={"nanos": 300_000_000})


@pytest.mark.parametrize(
    "status",
    [
        UNKNOWN,
        NOT_WRITTEN,
        reason("RESOURCE_EXHAUSTED", "OVERLOADED"),
        reason("ABORTED", "REQUEST_IN_PROGRESS"),
        reason("RESOURCE_EXHAUSTED", "LIMITED_BY_A_LATER_HERALD", LATER),
        reason("UNAVAILABLE", "MOVED_BY_A_LATER_HERALD"),
        *map(refusal, "UNAVAILABLE DEADLINE_EXCEEDED INTERNAL UNKNOWN CANCELLED".split()),
        reason("UNAVAILABLE", "VALIDATION_FAILED", domain="proxy.example"),
        # Details that are none.
        refusal("UNAVAILABLE")._replace(
            trailing_metadata=[("grpc-status-details-bin", b"\xff\xff")]
        ),
    ],
    ids=lambda status: status.code.name,
)
def test_what_can_help_is_tried_with_the_same_request_id(client, status):
    with Server(status, status, BOUGHT) as server:
        assert client.buy(server) == BOUGHT
    (request_id,) = {request.request_id for request in server.requests}
    assert uuid.UUID(request_id).version == 4
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "status",
    [
        reason("INVALID_ARGUMENT", "VALIDATION_FAILED"),
        reason("ALREADY_EXISTS", "REQUEST_ID_CONFLICT"),
        reason("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE"),
        refusal("PERMISSION_DENIED"),
        refusal("UNIMPLEMENTED"),
        refusal("RESOURCE_EXHAUSTED"),
    ],
    ids=lambda status: status.code.name,
)
def test_what_cannot_help_is_an_error_at_once(client, status):
    with Server(status) as server, pytest.raises(HeraldError) as error:
        client.buy(server)
    assert error.value.code == status.code
    assert len(server.requests) == 1


def test_no_more_attempts_are_made_than_asked_for(client):
    for attempts in (1, 3):
        with Server(*[NOT_WRITTEN] * 9) as server, pytest.raises(HeraldError) as error:
            client.buy(server, attempts=attempts)
        assert len(server.requests) == attempts
        assert error.value.request_id == server.requests[0].request_id


def test_the_server_says_how_long_to_wait(client):
    began = time.monotonic()
    with Server(reason("RESOURCE_EXHAUSTED", "OVERLOADED", LATER), BOUGHT) as server:
        client.buy(server)
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize(
    ("statuses", "maybe_done"),
    [
        ([UNKNOWN], True),
        ([refusal("INTERNAL")], True),
        ([refusal("UNIMPLEMENTED")], False),
        ([NOT_WRITTEN], False),
        # The second answer is about the second attempt only.
        ([UNKNOWN, NOT_WRITTEN], True),
        ([UNKNOWN, reason("INVALID_ARGUMENT", "VALIDATION_FAILED")], True),
        ([UNKNOWN, refusal("UNIMPLEMENTED")], True),
    ],
)
def test_an_error_says_whether_the_action_may_have_been_carried_out(client, statuses, maybe_done):
    with Server(*statuses) as server, pytest.raises(HeraldError) as error:
        client.buy(server, attempts=len(statuses))
    assert error.value.maybe_done == maybe_done
    said = f"try again with request id {server.requests[0].request_id}"
    assert (said in str(error.value)) == maybe_done


def test_details_of_an_error_are_read_whole(client):
    bad = error_details_pb2.BadRequest()
    for field in ("item_id", "quantity"):
        bad.field_violations.add(field=field, description=f"no such {field}")
    with Server(reason("INVALID_ARGUMENT", "VALIDATION_FAILED", bad)) as server:
        with pytest.raises(HeraldError, match="told by a test .VALIDATION_FAILED.$") as error:
            client.buy(server)
    found = [(v.field, v.description) for v in error.value.violations]
    assert found == [("item_id", "no such item_id"), ("quantity", "no such quantity")]
    assert error.value.code == grpc.StatusCode.INVALID_ARGUMENT


def test_only_an_action_without_a_request_id_gets_one_and_in_a_copy():
    request = pb.JoinGuildRequest(player_id="ann")
    sent, request_id = calls.with_request_id(request)
    assert sent.request_id == request_id != "" == request.request_id
    assert calls.with_request_id(sent) == (sent, request_id)
    for other in (pb.GetReceiptRequest(player_id="ann"), pb.GetPlayerRequest(player_id="ann")):
        assert calls.with_request_id(other) == (other, "")


def test_a_server_has_an_address():
    assert calls.address("http://127.0.0.1:50051") == ("127.0.0.1:50051", False)
    assert calls.address("events.example:443") == ("events.example:443", False)
    assert calls.address("https://events.example") == ("events.example", True)
    for wrong in ("", "http://", "ftp://events.example", "http://events.example/x"):
        with pytest.raises(ValueError, match="write it like http://127.0.0.1:50051"):
            calls.address(wrong)
