"""What schemathesis has to know beyond the OpenAPI document: loaded by it, not by pytest.

Each finding that is left out here is one of something that no such document can say, and is
left out for that alone.
"""

import itertools
import json
import pathlib
import re
import tempfile
import uuid

import schemathesis
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pb2 import MethodOptions
from openapi_schema_validator import OAS30Validator, oas30_format_checker
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.core.parameters import ParameterLocation
from schemathesis.openapi.checks import (
    AllowHeaderMismatch,
    RejectedPositiveData,
    UnsupportedMethodResponse,
)

from stub import modules

JSON = "application/json"
DURATION = re.compile(r"[0-9]+(\.[0-9]+)?s")
ITEMS = ["sword", "knife", "shield", "horse"]

# What the catalogue, the player's possessions and the log have against what is well formed.
BEYOND_SHAPE = (
    "not in the catalogue",
    "the player is not in it",
    "more than the player has",
    "not among the newest purchases",
    "not a token",
)

# Answered to a text that is none of those that the server gives out.
NOT_GIVEN_OUT = "CURSOR_MALFORMED"

# Request ids, each used once.
REQUESTS = itertools.count(1)

with tempfile.TemporaryDirectory() as folder:
    SERVICES = modules(pathlib.Path(folder))[0].DESCRIPTOR.services_by_name


def operation(case):
    return case.operation.schema.raw_schema["paths"][case.path][case.operation.method.lower()]


def call_of(case):
    """The RPC that an operation is."""
    service, name = operation(case)["operationId"].split("_")[-2:]
    return SERVICES[service].methods_by_name[name]


def is_route(case):
    return case.path.startswith("/v1/")


def is_positive(case):
    return case.meta is not None and case.meta.generation.mode.is_positive


@schemathesis.hook
def before_call(context, case, kwargs):
    """Makes of a request one that says more."""
    body = case.body if isinstance(case.body, dict) else {}
    # A poll would wait for an event; a wait that is none is sent as it is.
    if case.path.endswith("/PollEvents") and isinstance(case.body, dict):
        wait = body.get("maxWait")
        if wait is None or isinstance(wait, str) and DURATION.fullmatch(wait):
            body["maxWait"] = "0s"
    query, headers = case.query or {}, case.headers or {}
    # With a request id that was used before, all would be one conflict.
    for where, name in ((body, "requestId"), (query, "request_id"), (headers, "Idempotency-Key")):
        if is_uuid(where.get(name)):
            where[name] = str(uuid.UUID(int=next(REQUESTS)))
    if not is_positive(case):
        return
    # One member of a oneof, and a field in one place: a document can name all, but not ask for
    # one of them.
    for oneof in call_of(case).input_type.oneofs:
        names = [field.json_name for field in oneof.fields if field.json_name in body]
        for name in names[1:]:
            del body[name]
    if is_route(case):
        given = {snake(name) for name in body}
        for name in [name for name in query if name.split(".")[0] in given]:
            del query[name]
        if "request_id" in given | set(query):
            headers.pop("Idempotency-Key", None)
    # Half of the items are in the catalogue.
    for where, name in ((body, "itemId"), (query, "item_id")):
        if len(where.get(name, "")) % 2:
            where[name] = ITEMS[len(where[name]) // 2 % len(ITEMS)]


def is_uuid(text):
    try:
        return str(uuid.UUID(text)) == text
    except (AttributeError, TypeError, ValueError):
        return False


def snake(name):
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Whether a finding is one."""
    if isinstance(failure, RejectedPositiveData):
        return not is_beyond_shape(case, response)
    if isinstance(failure, AcceptedNegativeData):
        return not is_read_by_protobuf(case)
    if isinstance(failure, UnsupportedMethodResponse):
        return not is_connects_get(case, response)
    if isinstance(failure, AllowHeaderMismatch):
        # The same, in the header.
        more = (failure.missing_methods, failure.undocumented_methods)
        return not (only_reads_by_connect(case) and more == ([], ["GET"]))
    return True


def is_beyond_shape(case, response):
    """Whether what is well formed is refused for something that no schema knows."""
    answer = response.json()
    details = {detail["type"]: detail["debug"] for detail in answer.get("details", [])}
    info = details.get("google.rpc.ErrorInfo", answer)
    if info["reason"] == NOT_GIVEN_OUT:
        return True
    bad = details.get("google.rpc.BadRequest", {}).get("fieldViolations")
    violations = bad or answer.get("violations", [])
    return bool(violations) and all(
        # Characters are counted, and bytes bounded.
        it["description"].startswith("longer than ") and not is_ascii(case)
        # A body, or a query, has to have it: which one, is not said.
        or it["description"] == "missing" and is_route(case) and case.method == "POST"
        or it["description"].startswith(BEYOND_SHAPE)
        for it in violations
    )


def is_ascii(case):
    parts = (case.body, case.query, case.path_parameters)
    return all(json.dumps(part, ensure_ascii=False, default=str).isascii() for part in parts)


def is_read_by_protobuf(case):
    """Whether a body is a message to protobuf's own reader of JSON, and as the document says once
    that has written it down: with null for what is left out, say, or a number as a text."""
    others = set(ParameterLocation) - {ParameterLocation.BODY}
    if any(case.meta.is_negative_at(other) for other in others):
        return False
    message = message_factory.GetMessageClass(call_of(case).input_type)()
    try:
        json_format.ParseDict(case.body, message)
    except (json_format.ParseError, TypeError, AttributeError):
        return False
    schema = operation(case)["requestBody"]["content"][JSON]["schema"]
    schema = {**schema, "components": case.operation.schema.raw_schema["components"]}
    validator = OAS30Validator(schema, format_checker=oas30_format_checker)
    return validator.is_valid(json_format.MessageToDict(message))


def is_connects_get(case, response):
    """Whether a call that only reads is asked by GET, as Connect's clients do; without the
    parameters of that it is refused. The document has the other form."""
    by_get = response.request.method == "GET" and response.status_code == 400
    return by_get and only_reads_by_connect(case)


def only_reads_by_connect(case):
    only_reads = MethodOptions.IdempotencyLevel.Value("NO_SIDE_EFFECTS")
    return not is_route(case) and call_of(case).GetOptions().idempotency_level == only_reads
