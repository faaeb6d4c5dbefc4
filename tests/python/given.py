"""The servers of others that scripts/test starts, and says of in the environment."""

import os

import pytest


def given(server, *flags, needs="dir"):
    """What scripts/SERVER has said of one started with the flags that make it say what the test
    `needs`, by name. Without one a test is left out, or fails where it has to have one.
    """
    prefix = f"TEST_{server.upper()}_"
    found = {
        name.removeprefix(prefix).lower(): value
        for name, value in os.environ.items()
        if name.startswith(prefix)
    }
    if found.get(needs):
        return found
    start = " ".join([f"scripts/{server}", "start", *flags])
    how = (
        f"there is no {server} to test with: start one with `{start}`, and set "
        f"{prefix}{needs.upper()} and so on to what it prints (scripts/test does both)"
    )
    if os.environ.get(f"REQUIRE_{server.upper()}") == "1":
        pytest.fail(how, pytrace=False)
    pytest.skip(how)
