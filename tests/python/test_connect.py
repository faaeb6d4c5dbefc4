"""Clients of somebody else's speak plain HTTP: buf curl and connect-es the Connect protocol, and
curl."""

import json
import re
import subprocess

import pytest

import running

# With npm's answer, when buf is not there yet.
SECONDS = 300


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running.Server(tmp_path_factory.mktemp("data")) as server:
        running.wait_until(server.is_ready, running.START_SECONDS, "ready")
        yield server


def call(server, method, request, *flags):
    """Code and outputs of a call; what is refused is told on stderr."""
    command = '. scripts/lib.sh && ensure_buf >&2 && exec "$buf" curl --schema proto "$@"'
    url = f"{server.url}/game.v1.{method}"
    arguments = ["--protocol", "connect", *flags, "--data", json.dumps(request), url]
    return subprocess.run(
        ["bash", "-c", command, "bash", *arguments],
        cwd=running.REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


@pytest.mark.parametrize("flags", [[], ["--http2-prior-knowledge"]], ids=["http1", "http2"])
def test_buf_curl_buys_and_reads_it(server, flags):
    sword = {"playerId": "alice", "itemId": "sword"}
    done = call(server, "GameService/PurchaseItem", sword, *flags)
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout)["receipt"]
    asked = {"playerId": "alice", "atLeastCursor": receipt["cursor"]}
    done = call(server, "GameService/GetPlayer", asked, *flags)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["player"]["inventory"][0]["itemId"] == "sword"


def test_buf_curl_reads_why_it_is_refused(server):
    done = call(server, "GameService/PurchaseItem", {"playerId": "alice"})
    assert done.returncode != 0
    said = json.loads(done.stderr)
    assert said["code"] == "invalid_argument"
    details = {detail["type"]: detail["debug"] for detail in said["details"]}
    assert details["google.rpc.ErrorInfo"]["reason"] == "VALIDATION_FAILED"
    fields = [it["field"] for it in details["google.rpc.BadRequest"]["fieldViolations"]]
    assert fields == ["item_id"]


def test_clients_in_node_and_of_pages(server, tmp_path):
    done = subprocess.run(
        ["tests/connect_es/run", server.url, tmp_path],
        cwd=running.REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Six clients did three things each, and one together.
    assert re.search(r"^# pass 19$", done.stdout, re.MULTILINE), done.stdout


def test_buf_curl_is_told_that_streams_are_elsewhere(server):
    done = call(server, "EventFeedService/StreamEvents", {})
    assert done.returncode != 0
    said = json.loads(done.stderr)
    assert said["code"] == "unimplemented" and "gRPC" in said["message"]


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize("path", ["v1/players/alice/guild", "game.v1.GameService/JoinGuild"])
def test_who_still_writes_reads_why_it_is_refused(server, tmp_path, version, path):
    large = tmp_path / "large"
    large.write_bytes(b" " * 9_000_000)
    # Without being told to go on, all of it is sent at once.
    headers = ["-H", "content-type: application/json", "-H", "expect:"]
    done = subprocess.run(
        ["curl", "-sS", version, *headers, "--data-binary", f"@{large}", f"{server.url}/{path}"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert "over the limit of 65536 bytes" in done.stdout
