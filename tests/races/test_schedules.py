"""Every scenario, in as many orders as there are or as can be tried, on every store and backend.

The searches run on all cores, for they are what takes longest. On the local stores each order is
seeded by its number, so that a run looks where the one before did; the soak looks further.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from minisession.testing import explore_all
from tests.effort import Tally, effort
from tests.races.search import (
    BACKENDS,
    SCENARIOS,
    STORES,
    as_run_by,
    in_memory,
    run_again,
    search,
    undisturbed,
)

SEEDS = {
    "memory": effort(500, soak=10_000),
    "sqlite": effort(500, soak=10_000),
    "files": effort(5, soak=2_000),
    "remote": effort(50, soak=2_000),
}

CORES = 2

COUNTLESS = {
    "requests_of_three_users",  # three tasks and more: nobody waits for all their orders
    "child_tasks_and_threads_of_two_users",
    "counters_in_a_first_visit",
    "a_store_that_fails_in_the_middle_of_a_batch",  # need what runs in the background
    "a_touch_that_the_store_refuses",
}


@pytest.fixture(scope="module")
def cores() -> Iterator[ProcessPoolExecutor]:
    """Processes that search at the same time, and measure no coverage."""
    with ProcessPoolExecutor(CORES, get_context("spawn")) as pool:
        yield pool


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_promise_holds_in_every_order_that_is_tried(
    name: str, cores: ProcessPoolExecutor, tally: Tally
) -> None:
    searches = {
        (store, backend): cores.submit(search, name, store, backend, range(SEEDS[store]))
        for store in STORES
        for backend in BACKENDS
    }

    for (store, backend), one in searches.items():
        tried, failing = one.result()
        if failing is not None:
            run_again(name, store, backend, failing)
            pytest.fail(f"on {store} and {backend} it failed once, and not again: {failing!r}")
        tally("schedules", tried)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - COUNTLESS))
def test_a_promise_holds_in_all_orders_that_there_are_without_background_tasks(
    name: str, backend: str, tally: Tally
) -> None:
    with undisturbed(), in_memory(is_lifespan_run=False) as play:
        tried = explore_all(as_run_by(play, SCENARIOS[name]), backend=backend, limit=1000)

    tally("schedules", tried)
