"""Records are decoded by what the README says: by the descriptor set of `herald schema`."""

import os
import re
import subprocess
import sys

import running
from harness import SECONDS
from readme import README, block_of, changed, statements_of

HEADING = "### Decode the topic"


def kcat_and_protoc():
    """The commands in the first text block below the heading."""
    section = README.split(f"\n{HEADING}\n")[1].split("\n## ")[0]
    return re.search(r"^```text\n(kcat .*?)^```$", section, re.DOTALL | re.MULTILINE)[1]


def test_a_record_is_decoded_as_the_readme_says(kafka, herald, topic, tmp_path):
    receipt = herald().buy("zoë", "horse")
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "herald").symlink_to(running.binary())
    (commands / "protoc").write_text(f'#!/bin/sh\nexec {sys.executable} -m grpc_tools.protoc "$@"\n')
    (commands / "protoc").chmod(0o755)
    first, _ = statements_of(block_of(README, HEADING))[0]
    decode = changed(kcat_and_protoc(), "127.0.0.1:9092", kafka.brokers)
    decode = changed(decode, "game-events", topic)
    done = subprocess.run(
        ["bash", "-c", f"set -eo pipefail\n{first}{decode}"],
        cwd=tmp_path,
        env=running.environment() | {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert f'event_id: "{receipt.event_id}"' in done.stdout
    assert 'item_id: "horse"' in done.stdout
    # Nothing was left over that the schema does not know.
    assert not re.search(r"^\s*\d+:", done.stdout, re.MULTILINE)
