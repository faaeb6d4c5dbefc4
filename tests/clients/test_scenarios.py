"""Each client does what clients/README.md says, whatever befalls the server."""

import os

import pytest

from programs import CLIENTS, PROGRAMS
from scenarios import MARKS, table

README = CLIENTS / "README.md"


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_client_does_what_is_promised(outcome, name):
    wrong = {scenario: why for scenario, why in outcome(name).items() if why}
    assert not wrong, "\n".join(f"{scenario}: {why}" for scenario, why in wrong.items())


def test_the_table_is_what_the_programs_gave(outcome):
    """With WRITE_SCENARIOS=1 it is written instead."""
    before, rest = README.read_text().split(MARKS[0])
    found, behind = rest.split(MARKS[1])
    expected = table({name: outcome(name) for name in PROGRAMS})
    if os.environ.get("WRITE_SCENARIOS") == "1":
        README.write_text(MARKS[0].join([before, expected + MARKS[1] + behind]))
        return
    assert found == expected, f"run with WRITE_SCENARIOS=1, or make the table:\n{expected}"
