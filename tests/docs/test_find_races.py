"""The examples of the pages about testing: each bug is found, and each mended version keeps."""

from __future__ import annotations

import runpy
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from minisession.testing import ContractBroken, RaceFound, check_clause, clauses, explore
from tests.effort import Tally, effort

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / name))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_shops_second_gift_is_found(backend: str, tmp_path: Path) -> None:
    gifts = example("gifts.py")

    with pytest.raises(RaceFound, match="2 gifts were sent") as caught:
        explore(partial(gifts["double_click"], tmp_path / "sessions.db"), backend=backend)

    assert (caught.value.seed, caught.value.tried, caught.value.trace) == (3, 4, "")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_mended_shop_sends_one_gift(backend: str, tmp_path: Path, tally: Tally) -> None:
    gifts = example("gifts.py")
    scenario = partial(gifts["double_click"], tmp_path / "sessions.db", gifts["take_once"])

    schedules = explore(scenario, backend=backend, seeds=range(effort(40, soak=10_000)))

    tally("schedules", schedules)


@pytest.mark.anyio
async def test_the_cache_breaks_the_contract_as_the_page_says() -> None:
    stores = example("cached_store.py")

    with pytest.raises(ContractBroken, match="a_session_ends_exactly_when_it_expires"):
        await stores["test_it_keeps_the_contract"]()


@pytest.mark.anyio
async def test_the_careful_cache_keeps_the_contract() -> None:
    stores = example("cached_store.py")

    for clause in clauses():
        await check_clause(clause, stores["CarefulStore"])


@pytest.mark.parametrize(
    "name", ["explore", "explore_all", "replay", "RaceFound", "Schedule", "virtual_time",
             "check_store", "check_clause", "clauses", "ContractBroken"],
)  # fmt: skip
def test_what_authors_of_tests_use_is_in_the_reference(name: str) -> None:
    page = (EXAMPLES.parent / "reference" / "testing.md").read_text()

    assert f"`{name}" in page
