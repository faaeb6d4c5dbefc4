"""The README of each client does what it says.

Its first sh block is run word for word in that folder of a clone, where nothing is that is not
committed, with a server at HERALD_SERVER.
"""

import subprocess

import pytest

import running
from programs import FOLDERS
from readme import block_of, check, run, statements_of

# The whole block. The first time what is built with is fetched.
SECONDS = 1_200


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The repository as who has just fetched it has it."""
    folder = tmp_path_factory.mktemp("clone") / "herald"
    clone = ["git", "clone", "--quiet", "--no-local", "--depth=1"]
    subprocess.run([*clone, f"file://{running.REPOSITORY}", folder], check=True)
    return folder


@pytest.mark.parametrize("name", FOLDERS)
def test_a_client_is_made_and_tried_out_as_its_readme_says(clone, tmp_path, name):
    folder = clone / "clients" / name
    readme = (folder / "README.md").read_text()
    statements = statements_of(block_of(readme, readme.splitlines()[0]))
    assert statements[-1][1], "the last command says what comes out"
    with running.Server(tmp_path / "data") as server:
        environment = running.environment() | {"HERALD_SERVER": server.url}
        check(statements, run(statements, folder, environment, SECONDS))
