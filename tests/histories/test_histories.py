"""Whatever clients of one session do at the same time, one order of their steps explains it.

Hypothesis draws what they do and in which order their tasks run, and shrinks both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings

from minisession.abc import Store
from minisession.stores.memory import MemoryStore
from minisession.stores.sqlite import SQLiteStore
from tests.effort import Tally, effort
from tests.remote_store import RemoteStore

from .runs import Program, as_schedule, programs, schedules, verdict_of

Connect = Callable[[], Store]
Choices = tuple[list[int], int]

HISTORIES = 300
SCHEDULES = 4  # of each program


def a_memory() -> Connect:
    store = MemoryStore()
    return lambda: store


def a_network() -> Connect:
    store = MemoryStore()
    return lambda: RemoteStore(store)


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder that needs no disk: the promise of syncs is tested elsewhere."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def search(
    backend: str, a_store: Callable[[], Connect], histories: int, *, failing: bool = False
) -> None:
    """Look for a history that no order explains; each program runs in several schedules."""

    @given(program=programs(failing=failing), choices=schedules)
    @settings(
        max_examples=histories // SCHEDULES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        database=None,
    )
    def every_history_is_linearizable(program: Program, choices: Choices) -> None:
        first, seed = choices
        for turn in range(SCHEDULES):
            schedule = as_schedule(first, seed + turn)
            verdict = verdict_of(program, a_store(), backend=backend, schedule=schedule)
            assert verdict, str(verdict)

    every_history_is_linearizable()


@pytest.mark.slow
@pytest.mark.parametrize("a_store", [a_memory, a_network])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_every_history_is_linearizable(
    backend: str, a_store: Callable[[], Connect], tally: Tally
) -> None:
    histories = effort(HISTORIES, soak=20 * HISTORIES)

    search(backend, a_store, histories)

    tally("histories", histories)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_every_history_on_one_sqlite_file_is_linearizable(
    backend: str, disk: Path, tally: Tally
) -> None:
    histories = effort(HISTORIES, soak=20 * HISTORIES)

    search(backend, lambda: lambda: SQLiteStore(disk / "sessions.db"), histories)

    tally("histories", histories)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_every_history_on_a_network_that_fails_is_linearizable(backend: str, tally: Tally) -> None:
    histories = effort(HISTORIES, soak=20 * HISTORIES)

    search(backend, a_network, histories, failing=True)

    tally("histories", histories)
