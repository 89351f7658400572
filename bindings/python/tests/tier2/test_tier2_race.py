"""A minute of race.py (longer with HOTSET_STRESS), and a check that it detects deliberate faults.
"""

import os

import pytest
import race

STRESS = float(os.environ.get("HOTSET_STRESS", "1"))


def wrong(outcome):
    return [text for report in outcome["processes"] for text in report["wrong"]]


def reads(outcome):
    return sum(report["reads"] for report in outcome["processes"])


def test_race_without_faults():
    outcome = race.race(15 * STRESS, faults=())
    assert wrong(outcome) == [], outcome
    assert reads(outcome) > 1000


def test_race_with_faults():
    outcome = race.race(45 * STRESS)
    assert wrong(outcome) == [], outcome
    assert reads(outcome) > 1000


@pytest.mark.parametrize("broken", ["deaf", "keep", "stale fill"])
def test_race_detects_deliberate_faults(broken):
    assert wrong(race.race(10, faults=(), broken=broken)) != []


def test_race_finds_a_journal_that_is_not_replayed():
    assert wrong(race.race(20, faults=("stop", "pause", "kill connections"), broken="forget")) != []
