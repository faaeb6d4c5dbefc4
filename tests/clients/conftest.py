"""The programs of the clients, built and run once each."""

import functools
import subprocess

import pytest

import scenarios
from programs import CLIENTS, PROGRAMS

# A first build fetches what the client is made with.
BUILD_SECONDS = 1_200


@pytest.fixture(scope="session")
def build():
    """Builds the client in a folder."""

    @functools.cache
    def build(folder):
        (command,) = {tuple(p.build) for p in PROGRAMS.values() if p.folder == folder}
        done = subprocess.run(
            command,
            cwd=CLIENTS / folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_SECONDS,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"

    return build


@pytest.fixture(scope="session")
def outcome(kafka, modules, build):
    """Runs the program of a name: what is wrong, by scenario."""

    @functools.cache
    def outcome(name):
        build(PROGRAMS[name].folder)
        return scenarios.run(PROGRAMS[name], kafka, modules)

    return outcome
