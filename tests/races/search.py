"""Which scenarios there are, on which stores, and how one of them is searched for a bad order.

    python -m tests.races.search two_logouts sqlite trio '3:1 17:2'

runs one scenario again, in the schedule that a failed test has printed.
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial, update_wrapper
from inspect import iscoroutinefunction, signature
from itertools import count
from types import ModuleType

from minisession.stores.files import FilesStore
from minisession.stores.memory import MemoryStore
from minisession.testing import RaceFound, explore, replay
from tests.races import ends, logins, requests, writes
from tests.races.disk import disk
from tests.races.world import Scenario, World
from tests.remote_store import RemoteStore
from tests.scratch import scratch_folder

BACKENDS = ["asyncio", "trio"]

Play = Callable[[Scenario], Awaitable[None]]
Place = Callable[[], AbstractContextManager[Play]]


def _scenarios_of(module: ModuleType) -> Iterator[tuple[str, Scenario]]:
    """Find the functions of a module that take a world, and nothing else."""
    for name, function in vars(module).items():
        is_own = iscoroutinefunction(function) and function.__module__ == module.__name__
        if is_own and list(signature(function).parameters) == ["world"]:
            yield name, function


SCENARIOS: dict[str, Scenario] = {
    name: scenario
    for module in (writes, ends, logins, requests)
    for name, scenario in _scenarios_of(module)
}


@contextmanager
def in_memory(*, is_lifespan_run: bool = True) -> Iterator[Play]:
    """Every world has a memory of its own, which all its processes share."""

    async def play(scenario: Scenario) -> None:
        store = MemoryStore()
        await scenario(World(lambda: store, store, is_lifespan_run=is_lifespan_run))

    yield play


@contextmanager
def on_disk() -> Iterator[Play]:
    """All worlds, one after the other, have one SQLite file."""
    with disk() as opened:
        yield opened.play


@contextmanager
def in_files() -> Iterator[Play]:
    """Every world has a folder of files of its own."""
    numbers = count()

    async def play(scenario: Scenario) -> None:
        place = folder / str(next(numbers))
        store = FilesStore(place)
        try:
            await scenario(World(lambda: store, store))
        finally:
            store._place.writer.close(0)
            shutil.rmtree(place, ignore_errors=True)

    with scratch_folder() as folder:
        yield play


@contextmanager
def behind_a_network() -> Iterator[Play]:
    """Every call of the store suspends before and after it has its effect."""

    async def play(scenario: Scenario) -> None:
        store = MemoryStore()
        await scenario(World(lambda: RemoteStore(store), store))

    yield play


STORES: dict[str, Place] = {
    "memory": in_memory,
    "sqlite": on_disk,
    "files": in_files,
    "remote": behind_a_network,
}


def as_run_by(play: Play, scenario: Scenario) -> Callable[[], Awaitable[None]]:
    """Return a scenario as the race kit runs it: without arguments, and with its name."""
    return update_wrapper(partial(play, scenario), scenario)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Neither log nor measure coverage: a search asks for orders, and would take twice the time."""
    trace = sys.gettrace()
    sys.settrace(None)
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        sys.settrace(trace)


def search(name: str, store: str, backend: str, seeds: Iterable[int]) -> tuple[int, str | None]:
    """Run a scenario once for each seed, until it fails.

    Returns how many schedules that were, and the trace of the one that failed: what may come from
    another process, and is enough to see it all here, by `run_again`.
    """
    with undisturbed(), STORES[store]() as play:
        try:
            return explore(as_run_by(play, SCENARIOS[name]), backend=backend, seeds=seeds), None
        except RaceFound as found:
            return found.tried, found.trace


def run_again(name: str, store: str, backend: str, trace: str) -> None:
    """Run a scenario in the schedule of a trace; raise RaceFound if it fails."""
    with STORES[store]() as play:
        try:
            replay(as_run_by(play, SCENARIOS[name]), trace, backend=backend)
        except RaceFound as found:
            found.add_note(f"python -m tests.races.search {name} {store} {backend} {trace!r}")
            raise


if __name__ == "__main__":
    run_again(*sys.argv[1:])
