"""The quick start of the README does what it says, and so do the blocks about players.

An sh block is run as a user would run it: in an empty folder, with herald and grpcurl
on the PATH and a running server, which is new for each. A comment "# → TEXT"
below a command says what its output contains. Only the address is another one, so
that a server which is already running on the default one disturbs nothing.
"""

import os
import re
import shutil

import pytest

import running
from readme import DEFAULT_LISTEN, README, block_of, check, run, statements_of

BLOCKS = [
    "## Quick start",
    "### Plain HTTP",
    "### The feed over plain HTTP",
    "### Trying again",
    "### What players have",
    "## What players can do",
    "### Decode the topic",
    "## Export to files",
]

ASSIGNMENT = re.compile(r"\w+=\$\(")


@pytest.mark.parametrize("heading", BLOCKS)
def test_a_block_does_what_it_says(tmp_path, heading):
    statements = statements_of(block_of(README, heading))
    said = [expected or ASSIGNMENT.match(text) for text, expected in statements]
    assert all(said), "each command says what comes out"
    assert shutil.which("grpcurl"), "grpcurl is missing; scripts/test installs it"
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "herald").symlink_to(running.binary())
    environment = running.environment()
    environment["PATH"] = f"{commands}{os.pathsep}{environment['PATH']}"
    with running.Server(tmp_path / "data") as server:
        running.wait_until(server.is_ready, running.START_SECONDS, "ready")
        environment["HERALD_SERVER"] = server.url
        environment["HERALD_DATA_DIR"] = str(tmp_path / "data")
        here = [(text.replace(DEFAULT_LISTEN, server.address), says) for text, says in statements]
        for text, _ in statements:
            assert ("curl" in text) == (DEFAULT_LISTEN in text), "not the default address"
        (tmp_path / "home").mkdir()
        check(here, run(here, tmp_path / "home", environment))


def test_statements_and_what_they_say_are_told_apart():
    readme = "# A\n```sh\nno\n```\n## Quick start\nx\n```sh\n# b\nc 'd\n# e' \\\n  f\n# → g h\n\ni\n```\n"
    assert statements_of(block_of(readme)) == [("c 'd\n# e' \\\n  f\n", ["g h"]), ("i\n", [])]


def test_a_wrong_output_and_a_failed_command_are_found_out(tmp_path):
    statements = [("a=1\n", []), ("echo $a\n", ["1"])]
    outputs = run(statements, tmp_path, dict(os.environ))
    check(statements, outputs)
    with pytest.raises(AssertionError, match="does not say"):
        check([statements[0], ("echo $a\n", ["2"])], outputs)
    with pytest.raises(pytest.fail.Exception, match="ended with 3"):
        run([("echo a\n", []), ("(exit 3)\n", [])], tmp_path, dict(os.environ))
