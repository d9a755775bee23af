"""The mutation gate: each classic bug is found, soon, on both backends; each scenario finds one.

What a bug is, and who must find it, is the table in `planted`.
"""

from __future__ import annotations

import pytest

from minisession.testing import RaceFound, explore
from tests.effort import Tally
from tests.races.planted import BUGS, Bug
from tests.races.search import BACKENDS, SCENARIOS, as_run_by, undisturbed
from tests.races.world import Scenario

PATIENCE = 100  # schedules

HUNTS = [
    pytest.param(bug, scenario, id=f"{bug.name}: {scenario.__name__}")
    for bug in BUGS
    for scenario in bug.found_by
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("bug", "scenario"), HUNTS)
def test_a_planted_bug_is_found(
    bug: Bug, scenario: Scenario, backend: str, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    bug.plant(monkeypatch)

    with undisturbed(), pytest.raises(RaceFound) as found:
        explore(as_run_by(bug.play, scenario), backend=backend, seeds=range(PATIENCE))

    assert isinstance(_first(found.value.__cause__), AssertionError), "it broke, and was not found"
    tally("schedules", found.value.tried)


def test_every_scenario_can_fail() -> None:
    able = {scenario for bug in BUGS for scenario in bug.found_by}

    assert set(SCENARIOS.values()) == able


def _first(error: BaseException | None) -> BaseException | None:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
