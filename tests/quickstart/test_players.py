"""What the README says of players, of trying again and of the catalogue is what is seen.

The server has the catalogue of the README: at most two horses, and a saddle needs one.
"""

import contextlib
import json
import re
import shutil
import sqlite3
import subprocess
import uuid

import pytest

import running
from readme import README

# How long a server that must not get ready is asked; it has said why before.
ASKED = "1s"


@pytest.fixture
def server(tmp_path):
    assert shutil.which("grpcurl"), "grpcurl is missing; scripts/test installs it"
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(re.search(r"^```toml\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)[1])
    with running.Server(tmp_path / "data", "--catalog", catalog) as server:
        yield ready(server)


def ready(server):
    running.wait_until(server.is_ready, running.START_SECONDS, "ready")
    return server


def herald(server, *words):
    """What a command ends with, and says, errors too."""
    command = [running.binary(), *words, "--server", server.url]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=running.environment(),
        text=True,
        timeout=running.START_SECONDS,
    )
    return done.returncode, done.stdout


def done(server, *words):
    code, said = herald(server, *words, "--json")
    assert code == 0, said
    return json.loads(said)


def buy(server, player, item, *more):
    return done(server, "purchase", "--player", player, "--item", item, *more)


def player_at(server, player, receipt):
    """What a player has, an event included: what was written is read back a moment later."""
    return done(server, "player", player, "--at-least", receipt["cursor"])["player"]


def asked(server, method, **request):
    """What grpcurl says to a call, errors too."""
    command = ["grpcurl", "-plaintext", "-d", json.dumps(request), server.address]
    ended = subprocess.run(
        [*command, f"game.v1.GameService/{method}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=running.START_SECONDS,
    )
    return ended.stdout


def section(heading):
    return README.split(f"\n{heading}\n")[1].split("\n## ")[0].split("\n### ")[0]


def rows(heading):
    """The cells of the table of a section."""
    lines = re.findall(r"^\| .*\|$", section(heading), re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


# What each row about a refusal is brought about by, in its order: what has to be there
# before, and what is refused.
HORSE = "purchase --player alice --item horse"
REFUSED = {
    "PurchaseItem: `item_id`: the catalogue": ([], "purchase --player alice --item axe"),
    "PurchaseItem: `item_id`: what it requires": ([], "purchase --player alice --item saddle"),
    "PurchaseItem: `quantity`": ([HORSE], f"{HORSE} --quantity 2"),
    "GrantItem: `item_id`": ([HORSE], "grant --player alice --item horse --quantity 2"),
    "ConsumeItem: `quantity`": ([HORSE], "consume --player alice --item horse --quantity 2"),
    "RefundPurchase: `purchase_event_id`: no purchase": (
        [HORSE, "refund --player alice --purchase EVENT"],
        "refund --player alice --purchase EVENT",
    ),
    "RefundPurchase: `purchase_event_id`: it was used": (
        [HORSE, "consume --player alice --item horse"],
        "refund --player alice --purchase EVENT",
    ),
    "JoinGuild: `guild_id`": ([], "join --player alice --guild foxes"),
    "LeaveGuild: `guild_id`": (
        ["join --player alice --guild owls"],
        "leave --player alice --guild mascots",
    ),
}


def refusals():
    """What the README says of each refusal: the row, and the text."""
    found, call, text = [], "", ""
    for named, _, _, violation, says in rows("## What players can do")[1:]:
        call = named.strip("`") or call
        text = text if says == "the same" else says.strip("`")
        if violation:
            found.append((f"{call}: {violation}", text))
    return found


@pytest.mark.parametrize("row, text", refusals())
def test_a_refusal_says_what_the_readme_says(server, row, text):
    (before, refused) = next(REFUSED[key] for key in REFUSED if row.startswith(key))
    event = "none"
    for command in before:
        receipt = done(server, *command.replace("EVENT", event).split())["receipt"]
        player_at(server, "alice", receipt)
        event = receipt["eventId"] if event == "none" else event
    if row.startswith("GrantItem"):
        text = "a player may have at most 2 of it, and this one has 1"
    code, said = herald(server, *refused.replace("EVENT", event).split())
    assert code == 1 and "VALIDATION_FAILED" in said and text in said


def test_each_refusal_is_brought_about():
    named = [row for row, _ in refusals()]
    assert len(named) == len(REFUSED)
    assert all(sum(row.startswith(key) for row in named) == 1 for key in REFUSED)


def reasons(heading):
    """Those that the README explains there."""
    seen = " ".join(cells[0] for cells in rows(heading))
    return set(re.findall(r"`([A-Z]+_[A-Z_]+)`", seen))


def test_a_purchase_is_made_once_and_its_receipt_can_be_asked_for(server):
    request = str(uuid.uuid4())
    first = buy(server, "carol", "horse", "--request-id", request)
    again = buy(server, "carol", "horse", "--request-id", request)
    assert again["receipt"].pop("replayed") and "replayed" not in first["receipt"]
    inventory = player_at(server, "carol", again["receipt"])["inventory"]
    assert inventory == [{"itemId": "horse", "quantity": "1"}]
    for receipt in (first["receipt"], again["receipt"]):
        # It is that of the place behind which the whole feed was.
        receipt.pop("cursor")
    assert again == first
    known = done(server, "receipt", "carol", request)["receipt"]
    assert known.pop("replayed") and known.pop("cursor")
    assert known == first["receipt"]
    assert first["receipt"]["eventId"] in asked(
        server, "GetReceipt", player_id="carol", request_id=request
    )


def test_what_a_request_id_is_refused_for_is_in_the_readme(server):
    request = str(uuid.uuid4())
    buy(server, "carol", "horse", "--request-id", request)
    for words in (["--item", "horse", "--quantity", "2"], ["--item", "sword"]):
        again = ["purchase", "--player", "carol", "--request-id", request, *words]
        code, said = herald(server, *again)
        assert code == 1 and "REQUEST_ID_CONFLICT" in said
    said = asked(server, "GetReceipt", player_id="carol", request_id=str(uuid.uuid4()))
    assert "RECEIPT_UNKNOWN" in said and "horizon_start" in said
    # What was refused is corrected under its id.
    other = str(uuid.uuid4())
    code, said = herald(server, *"purchase --player carol --item axe --request-id".split(), other)
    assert code == 1 and "VALIDATION_FAILED" in said
    assert "replayed" not in buy(server, "carol", "sword", "--request-id", other)["receipt"]
    assert {"REQUEST_ID_CONFLICT", "RECEIPT_UNKNOWN", "VALIDATION_FAILED"} <= reasons(
        "### Trying again"
    )


def test_what_is_seen_of_a_player_is_in_the_readme(server, tmp_path):
    cursor = buy(server, "carol", "horse")["receipt"]["cursor"]
    with running.Server(tmp_path / "another") as another:
        other = buy(ready(another), "dave", "sword")["receipt"]["cursor"]
    said = asked(server, "GetPlayer", player_id="carol", at_least_cursor=cursor)
    assert '"itemId": "horse"' in said
    seen = {
        "PLAYER_UNKNOWN": asked(server, "GetPlayer", player_id="nobody"),
        "CURSOR_MALFORMED": asked(
            server, "GetPlayer", player_id="carol", at_least_cursor="nonsense"
        ),
        "FEED_EPOCH_CHANGED": asked(
            server, "GetPlayer", player_id="carol", at_least_cursor=other
        ),
    }
    for reason, said in seen.items():
        assert reason in said
    # The server itself is tested for these.
    in_time = {"STATE_BEHIND", "LOG_UNAVAILABLE"}
    assert reasons("### What players have") == {*seen, *in_time}


def test_members_come_by_pages(server):
    for player in ("alice", "bob"):
        done(server, "join", "--player", player, "--guild", "owls")
    player_at(server, "bob", buy(server, "bob", "sword")["receipt"])
    page = json.loads(asked(server, "ListGuildMembers", guild_id="owls", page_size=1))
    assert page["playerIds"] == ["alice"] and page["totalSize"] == "2"
    rest = asked(server, "ListGuildMembers", guild_id="owls", page_token=page["nextPageToken"])
    assert json.loads(rest)["playerIds"] == ["bob"]


def test_with_a_damaged_log_nothing_is_said_of_players_and_nothing_is_written(tmp_path):
    data = tmp_path / "data"
    with running.Server(data, "--snapshot-file", "off") as server:
        for _ in range(3):
            buy(ready(server), "alice", "sword")
    with contextlib.closing(sqlite3.connect(data / "events.sqlite3")) as events, events:
        events.execute("DELETE FROM partition_0 WHERE offset = 1")
    with running.Server(data, "--snapshot-file", "off", ready=False) as server:
        server.line("the players cannot be read from the log.*lacks offset 1")
        assert not server.is_ready()
        for words in ("player alice", "purchase --player alice --item sword"):
            code, said = herald(server, *words.split(), "--timeout", ASKED)
            assert code == 3 and "LOG_UNAVAILABLE" in said
        said = asked(server, "GetReceipt", player_id="alice", request_id=str(uuid.uuid4()))
        assert "LOG_UNAVAILABLE" in said
