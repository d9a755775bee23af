"""Whatever clients of one session do at the same time, one order of their steps explains it.

Hypothesis draws what they do and in which order their tasks run, and shrinks both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from minisession.abc import Store
from minisession.stores import open_store
from minisession.stores.memory import MemoryStore
from tests.effort import Tally, effort
from tests.races.search import undisturbed
from tests.remote_store import RemoteStore
from tests.scratch import scratch_folder

from .runs import Program, as_schedule, programs, schedules, verdict_of

Connect = Callable[[], Store]
Choices = tuple[list[int], int]

HISTORIES = effort(300, soak=6_000)
FEWER_HISTORIES = effort(100, soak=6_000)
SCHEDULES = 4  # of each program


def a_memory() -> Connect:
    store = MemoryStore()
    return lambda: store


def a_network() -> Connect:
    store = MemoryStore()
    return lambda: RemoteStore(store)


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder that needs no disk."""
    with scratch_folder() as folder:
        yield folder


def search(
    backend: str,
    a_store: Callable[[], Connect],
    tally: Tally,
    *,
    failing: bool = False,
    histories: int = HISTORIES,
) -> None:
    """Look for a history that no order explains; each program runs in several schedules."""
    tried = 0

    @given(program=programs(failing=failing), choices=schedules)
    @settings(
        max_examples=histories // SCHEDULES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        database=None,
    )
    def every_history_is_linearizable(program: Program, choices: Choices) -> None:
        nonlocal tried
        first, seed = choices
        for turn in range(SCHEDULES):
            tried += 1
            schedule = as_schedule(first, seed + turn)
            verdict = verdict_of(program, a_store(), backend=backend, schedule=schedule)
            assert verdict, str(verdict)

    with undisturbed():
        every_history_is_linearizable()
    tally("histories", tried)


@pytest.mark.slow
@pytest.mark.parametrize("a_store", [a_memory, a_network])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_every_history_is_linearizable(
    backend: str, a_store: Callable[[], Connect], tally: Tally
) -> None:
    search(backend, a_store, tally)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "histories"),
    [("sqlite:///{}/sessions.db", HISTORIES), ("file://{}/sessions", FEWER_HISTORIES)],
    ids=["sqlite", "files"],
)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_every_history_in_one_place_on_disk_is_linearizable(
    backend: str, url: str, histories: int, disk: Path, tally: Tally
) -> None:
    search(backend, lambda: lambda: open_store(url.format(disk)), tally, histories=histories)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_every_history_on_a_network_that_fails_is_linearizable(backend: str, tally: Tally) -> None:
    search(backend, a_network, tally, failing=True)
