"""The proofs in small size, by the command that runs them in full."""

import os
import subprocess

import pytest

import running


@pytest.mark.parametrize("name", ["writes", "kill9", "throughput", "kafka_writes"])
def test_the_proof_holds_in_small_size(name):
    done = subprocess.run(
        [running.REPOSITORY / "scripts" / "prove", name, "small"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | {"HERALD_BIN": running.binary()},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{name}, small: holds" in done.stdout
