"""A program that does not do what it says is found out."""

import json
import sys

import pytest

import scenarios
from programs import Program
from scenarios import SCENARIOS

# Nothing of it is true.
LIES = """
for name in json.loads(sys.argv[1]):
    print(json.dumps({"scenario": name, "passed": True, "facts": {"event_ids": []}}))
"""

# Buys twice where it says once, and tries again what is refused.
CARELESS = """
import os
from herald.client import Client, HeraldError
from herald.game.v1 import game_pb2 as pb
client, player = Client(os.environ["HERALD_SERVER"]), os.environ["HERALD_RUN"] + "-purchase"
def buy(item, quantity):
    request = pb.PurchaseItemRequest(player_id=player, item_id=item, quantity=quantity)
    return client.call(client.game.PurchaseItem, request).receipt
for quantity in json.loads(sys.argv[1]):
    receipt = buy("sword", quantity)
facts = {"event_id": receipt.event_id, "request_id": receipt.request_id}
print(json.dumps({"scenario": "purchase", "passed": True, "facts": facts}))
for _ in range(2):
    try:
        buy("dragon", 1)
    except HeraldError:
        pass
print(json.dumps({"scenario": "unknown item", "passed": True}))
"""


@pytest.fixture
def wrong(kafka, modules, built):
    """What is wrong with a program."""
    built("python")

    def wrong(text, *arguments):
        command = [sys.executable, "-c", f"import json, sys\n{text}", *arguments]
        return scenarios.run(Program("python", command, []), kafka, modules)

    return wrong


def test_what_never_happened_is_not_believed(wrong):
    why = wrong(LIES, json.dumps(list(SCENARIOS)))
    assert all(text.startswith("it says that this passed; but") for text in why.values()), why


def test_an_action_that_is_carried_out_twice_is_noticed(wrong):
    why = wrong(CARELESS, "[2, 2]")
    assert why["purchase"] and why["unknown item"]


def test_a_refusal_that_is_tried_again_is_noticed(wrong):
    why = wrong(CARELESS, "[2]")
    assert why["purchase"] is None
    assert "it was tried again" in why["unknown item"]
    assert "None instead of 'retry'" in why["retry"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sys.exit('no such server')", "it ended with 1: no such server"),
        ("print('started')", "no object in JSON on its stdout: 'started"),
        ("print('{\"ask\": \"mercy\"}')", "it asks for 'mercy'"),
        ("print('{\"scenario\": \"retry\"}')", "'retry' instead of 'purchase'"),
    ],
)
def test_a_program_that_breaks_off_has_nothing_that_passed(wrong, text, said):
    why = wrong(text)
    assert list(why) == list(SCENARIOS)
    assert all(said in text for text in why.values()), why
