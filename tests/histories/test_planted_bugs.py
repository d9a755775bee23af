"""The search finds what is wrong with a store, and shows it in a few steps.

Each store has one mistake. Hypothesis finds a history that no order explains, and leaves out of it
whatever is not needed.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st

from minisession.abc import Store
from minisession.stores.memory import MemoryStore
from tests.effort import SOAK, Tally
from tests.races.faulty_stores import (
    ChecksThenActs,
    CountsEveryEpoch,
    ReadsThroughACache,
    RegeneratesByCopying,
    RegeneratesOneByOne,
    SetsWithoutComparing,
    TakesHalvesOfLateWrites,
    UpsertsWhatIsGone,
    WritesKeyByKey,
)
from tests.remote_store import RemoteStore

from .runs import Program, as_schedule, programs, schedules, verdict_of

Connect = Callable[[], Store]
Case = tuple[Program, tuple[list[int], int]]


def behind_a_network(kind: type[MemoryStore]) -> Connect:
    store = kind()
    return lambda: RemoteStore(store)


def with_connections_of(kind: type[RemoteStore]) -> Connect:
    store = MemoryStore()
    return lambda: kind(store)


BUGS: dict[str, Callable[[], Connect]] = {
    "upserts": lambda: behind_a_network(UpsertsWhatIsGone),
    "sets": lambda: behind_a_network(SetsWithoutComparing),
    "copies": lambda: behind_a_network(RegeneratesByCopying),
    "caches": lambda: with_connections_of(ReadsThroughACache),
    "checks, then acts": lambda: behind_a_network(ChecksThenActs),
    "key by key": lambda: behind_a_network(WritesKeyByKey),
    "one by one": lambda: behind_a_network(RegeneratesOneByOne),
    "every epoch": lambda: behind_a_network(CountsEveryEpoch),
    "halves": lambda: behind_a_network(TakesHalvesOfLateWrites),
}
EVERY = [(bug, backend) for bug in BUGS for backend in ("asyncio", "trio")]
SOME = [("upserts", "asyncio"), ("sets", "trio")]
"""In every run: to find one and to shorten it takes a hundred histories and more."""

TRIES = 2000


@pytest.mark.slow
@pytest.mark.parametrize(("bug", "backend"), EVERY if SOAK else SOME)
def test_a_mistake_is_found_and_shown_in_a_few_steps(bug: str, backend: str, tally: Tally) -> None:
    histories = 0

    def no_order_explains(case: Case) -> bool:
        nonlocal histories
        histories += 1
        program, choices = case
        schedule = as_schedule(*choices)
        return not verdict_of(program, BUGS[bug](), backend=backend, schedule=schedule)

    program, _ = find(
        st.tuples(programs(), schedules),
        no_order_explains,
        settings=settings(
            max_examples=TRIES,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
        random=Random(3),
    )

    steps = [step for client in program.clients for step in client.steps if step != ("pause",)]
    assert len(steps) <= 4
    tally("histories", histories)
