"""schemathesis calls the server by its OpenAPI document: at each bound that it tells, on both
sides, and by chance, though the same in every run. What it finds is a defect of one of the two.

What it has to be told beside the document is in schemathesis_hooks.py.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

import openapi
import running

# Requests by chance for each operation; those at bounds are some 1,700 in all.
EXAMPLES = os.environ.get("TEST_SCHEMATHESIS_EXAMPLES", "10")
# What takes longer hangs, unless it is told to look for more.
SECONDS = 600
CALL_SECONDS = 60

HERE = pathlib.Path(__file__).parent
# Its other checks are of logins, and of resources that are made and deleted.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "unsupported_method",
    "allow_header_conformance",
]


@pytest.fixture
def server(tmp_path):
    with running.Server(tmp_path / "data") as server:
        running.wait_until(server.is_ready, running.START_SECONDS, "ready")
        yield server


def run(server, document, folder, *flags):
    """schemathesis with a document; its exit code, and what it says."""
    file = folder / "openapi.json"
    file.write_text(json.dumps(document))
    paths = os.pathsep.join([str(HERE), str(running.REPOSITORY / "proofs")])
    command = [sys.executable, "-m", "schemathesis.cli", "--no-color", "run", str(file)]
    command += ["--url", server.url, "--checks", ",".join(CHECKS)]
    command += ["--phases", "coverage,fuzzing", "--max-examples", EXAMPLES]
    command += ["--generation-deterministic", "--continue-on-failure", "--warnings", "off"]
    # Whose answer goes on; tests/it/events.rs tries what is wrong with it.
    command += ["--exclude-path", "/v1/events"]
    command += ["--request-timeout", str(CALL_SECONDS), "--output-sanitize", "false", *flags]
    environment = running.environment() | {
        "PYTHONPATH": paths,
        "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis"),
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    return done.returncode, done.stdout + done.stderr


def test_schemathesis_finds_nothing(server, tmp_path):
    code, said = run(server, openapi.load(server), tmp_path)
    assert code == 0, said
    generated = re.search(r"([\d,]+) generated", said)
    assert int(generated[1].replace(",", "")) > 1500, said


def test_what_the_document_says_wrongly_is_found(server, tmp_path):
    document = openapi.load(server)
    del document["paths"]["/v1/players/{player_id}"]["get"]["responses"]["400"]
    schemas = document["components"]["schemas"]
    schemas["CatalogItem"]["properties"]["unitPrice"] = {"type": "integer"}
    schemas["JoinGuildRequest"]["properties"]["guildId"]["maxLength"] = 63
    schemas["GrantItemRequest"]["properties"]["quantity"]["maximum"] = 1_000_001
    flags = ["--include-operation-id-regex", "(GetPlayer|GetCatalog|JoinGuild|GrantItem)$"]
    code, said = run(server, document, tmp_path, *flags)
    assert code == 1, said
    for finding in (
        "Undocumented status code",
        "Response violates schema",
        "Schema-violating request accepted",
        "Schema-valid request rejected",
    ):
        assert finding in said, said
