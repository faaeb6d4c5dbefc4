"""The clients' own tests, for what no scenario reaches."""

import pytest

from programs import FOLDERS, OWN_TESTS

# What takes longer hangs.
SECONDS = 300


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_own_tests_of_a_client_pass(built, folder):
    built(folder)(OWN_TESTS[folder], SECONDS)
