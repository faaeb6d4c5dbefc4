"""The programs of the clients, built and run once each."""

import functools
import subprocess

import pytest

import scenarios
from programs import CLIENTS, PROGRAMS

# A first build fetches what the client is made with.
BUILD_SECONDS = 1_200


def run_in(folder, command, seconds):
    """Runs a command of a client in its folder. Its output is shown when it fails."""
    done = subprocess.run(
        command,
        cwd=CLIENTS / folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"


@pytest.fixture(scope="session")
def built():
    """Builds what is in the folder of a client, and returns what runs commands there."""

    @functools.cache
    def built(folder):
        (command,) = {tuple(p.build) for p in PROGRAMS.values() if p.folder == folder}
        run_in(folder, command, BUILD_SECONDS)
        return functools.partial(run_in, folder)

    return built


@pytest.fixture(scope="session")
def outcome(kafka, modules, built):
    """Runs the program of a name: what is wrong, by scenario."""

    @functools.cache
    def outcome(name):
        built(PROGRAMS[name].folder)
        return scenarios.run(PROGRAMS[name], kafka, modules)

    return outcome
