"""The searches: many schedules by their seeds, all schedules, or one of them again."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType

from .found import RaceFound, leaf
from .run import Run, Scenario, current
from .schedule import Schedule, counted, next_choices
from .shrink import shrunk
from .threads import Threads

__all__ = ["explore", "explore_all", "replay"]

_NOT_FOUND = (KeyboardInterrupt, SystemExit, GeneratorExit)
_COLLECT_EVERY = 100
"""Runs between two garbage collections: each leaves some 100 kB of cycles."""


def explore(scenario: Scenario, *, backend: str, seeds: Iterable[int] = range(500)) -> int:
    """Run a scenario once for each seed, each time in another order of its steps.

        async def scenario():
            ...
            assert what_must_be_true

        def test_it_holds_in_any_order():
            explore(scenario, backend="asyncio")

    What it makes, it makes inside, so that every run begins alike; it must do nothing that differs
    from run to run besides the order. Time is virtual, and threads run one at a time.

    Args:
        scenario: an async function without arguments; what it raises has been found.
        backend: "asyncio" or "trio".
        seeds: the same seed makes the same order.

    Returns:
        How many schedules were run.

    Raises:
        RaceFound: at the first schedule in which the scenario fails.
    """
    tried = 0
    with _Searching(scenario, backend) as search:
        for seed in seeds:
            tried += 1
            schedule = Schedule.seeded(seed)
            problem = search.fails(schedule)
            if problem is not None:
                raise search.found(problem, schedule, seed=seed, tried=tried)
    return tried


def explore_all(scenario: Scenario, *, backend: str, limit: int = 10_000) -> int:
    """Run a scenario in every order in which its steps can be taken; see `explore`.

    Returns:
        How many schedules there are.

    Raises:
        RaceFound: at the first schedule in which the scenario fails.
        RuntimeError: there are more than `limit`, or the scenario differs from run to run.
    """
    tried = 0
    choices: list[int] | None = []
    before: Schedule | None = None
    with _Searching(scenario, backend) as search:
        while choices is not None:
            if tried == limit:
                raise RuntimeError(
                    f"there are more than {limit:,} schedules, and {limit:,} were run without a"
                    " failure. Take fewer tasks or awaits, a larger `limit`, or `explore`"
                )
            tried += 1
            schedule = counted(choices)
            problem = search.fails(schedule)
            if problem is not None:
                raise search.found(problem, schedule, seed=None, tried=tried)
            _check_same(before, schedule, len(choices))
            before, choices = schedule, next_choices(schedule)
    return tried


def replay(scenario: Scenario, trace: str | Schedule, *, backend: str) -> None:
    """Run a scenario in one schedule: that of a trace that `RaceFound` has printed.

    Or in a `Schedule` of your own, such as one whose choices Hypothesis draws.

    Raises:
        RaceFound: the scenario fails; its trace is that of this run.
        ValueError: this is no trace.
    """
    schedule = Schedule.replayed(trace) if isinstance(trace, str) else trace
    with _Searching(scenario, backend) as search:
        problem = search.fails(schedule)
    if problem is not None:
        raise RaceFound(
            search.name, problem, backend=backend, seed=None, trace=schedule.trace, tried=1
        ) from problem


class _Searching:
    """The runs of one search, with what they share: the backend, prepared, and its threads."""

    def __init__(self, scenario: Scenario, backend: str) -> None:
        self.name = getattr(scenario, "__name__", "scenario")
        self._scenario = scenario
        self._backend = backend
        self._shim = _shim(backend)
        self._threads = Threads()
        self._runs = 0

    def __enter__(self) -> _Searching:
        self._prepared = self._shim.controlled(self._threads)
        self._prepared.__enter__()
        self._collected = gc.isenabled()
        gc.disable()
        return self

    def __exit__(self, *_: object) -> None:
        if self._collected:
            gc.enable()
        self._prepared.__exit__(None, None, None)
        self._threads.end()

    def fails(self, schedule: Schedule) -> BaseException | None:
        """Run the scenario once; return what it raised, or why it was ended."""
        self._runs += 1
        if self._runs % _COLLECT_EVERY == 0:
            gc.collect(1)
        run = Run(schedule, self._threads)
        try:
            with current(run):
                self._shim.run_scenario(self._scenario, run)
        except _NOT_FOUND:
            raise
        except BaseException as error:  # noqa: BLE001  # it is what was looked for
            run.problem = run.problem or error
        if run.broken_off is not None:
            raise run.broken_off
        return run.problem

    def found(
        self, problem: BaseException, schedule: Schedule, *, seed: int | None, tried: int
    ) -> RaceFound:
        """Return what is to be raised, with a trace that is as short as can be had soon."""
        kind = type(leaf(problem))
        shortest = schedule, problem

        def fails(choices: list[int]) -> list[int] | None:
            nonlocal shortest
            shorter = counted(choices)
            again = self.fails(shorter)
            if again is None or type(leaf(again)) is not kind:
                return None
            shortest = shorter, again
            return shorter.choices

        shrunk(schedule.choices, fails)
        schedule, problem = shortest
        error = RaceFound(
            self.name, problem, backend=self._backend, seed=seed, trace=schedule.trace, tried=tried
        )
        error.__cause__ = problem
        return error


def _shim(backend: str) -> ModuleType:
    if backend not in ("asyncio", "trio"):
        raise ValueError(f"backend={backend!r}: allowed are 'asyncio' and 'trio'")
    return import_module(f"{__package__}.{backend}_shim")


def _check_same(before: Schedule | None, schedule: Schedule, fixed: int) -> None:
    if before is None or before.ways[:fixed] == schedule.ways[:fixed]:
        return
    raise RuntimeError(
        "the scenario differs from run to run: after the same choices, other steps were ready."
        " Is there something from outside, such as time, or something left by the run before?"
    )
