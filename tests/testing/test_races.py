"""The race kit: what it controls, what it finds, and that it does the same again."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Coroutine
from math import factorial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from minisession.testing import (
    RaceFound,
    Schedule,
    explore,
    explore_all,
    replay,
    virtual_time,
)
from minisession.testing._races import run

pytestmark = pytest.mark.parametrize("backend", ["asyncio", "trio"])

Scenario = Callable[[], Coroutine[Any, Any, None]]


def steps_of(tasks: int, awaits: int, log: list[str] | None = None) -> Scenario:
    """Return a scenario of so many tasks, each with so many awaits."""

    async def task(name: str) -> None:
        for _ in range(awaits):
            if log is not None:
                log.append(name)
            await checkpoint()

    async def scenario() -> None:
        if log is not None:
            log.append(" ")
        async with anyio.create_task_group() as group:
            for number in range(tasks):
                group.start_soon(task, "abcdef"[number])

    return scenario


async def lost_update() -> None:
    """Two tasks count, and one may overwrite what the other has counted."""
    count = 0

    async def increment() -> None:
        nonlocal count
        seen = count
        await checkpoint()
        count = seen + 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(increment)
        await checkpoint()
        await checkpoint()
        tasks.start_soon(increment)

    assert count == 2, f"{count} of 2"


async def deep_race() -> None:
    """Fails only if one task sleeps through many steps of another."""
    steps = 0

    async def walk() -> None:
        nonlocal steps
        for _ in range(12):
            await checkpoint()
            steps += 1

    async def look() -> None:
        before = steps
        await checkpoint()
        assert steps - before < 6, "overtaken"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(walk)
        tasks.start_soon(look)


async def two_locks() -> None:
    """Two tasks take the same two locks, each the other one first."""
    one, other = anyio.Lock(), anyio.Lock()

    async def take(first: anyio.Lock, second: anyio.Lock) -> None:
        async with first:
            await checkpoint()
            async with second:
                pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take, one, other, name="Ada")
        tasks.start_soon(take, other, one, name="Bob")


def found(scenario: Scenario, backend: str, seeds: int = 100) -> RaceFound:
    with pytest.raises(RaceFound) as caught:
        explore(scenario, backend=backend, seeds=range(seeds))
    return caught.value


# --- every order, and each of them once ---------------------------------------------------------


@pytest.mark.parametrize(("tasks", "awaits"), [(1, 3), (2, 0), (2, 1), (2, 2), (3, 0), (3, 1)])
def test_all_schedules_of_a_tiny_program_are_run(backend: str, tasks: int, awaits: int) -> None:
    steps = awaits + 1
    orders = factorial(tasks * steps) // factorial(steps) ** tasks

    assert explore_all(steps_of(tasks, awaits), backend=backend) == orders


def test_no_two_of_all_schedules_are_alike(backend: str) -> None:
    log: list[str] = []

    explore_all(steps_of(2, 3, log), backend=backend)

    orders = "".join(log).split()
    assert len(set(orders)) == factorial(6) // factorial(3) ** 2
    assert all(sorted(order) == list("aaabbb") for order in orders)


def test_seeds_find_nearly_all_orders(backend: str) -> None:
    log: list[str] = []

    assert explore(steps_of(2, 3, log), backend=backend, seeds=range(300)) == 300

    assert len(set("".join(log).split())) > 18  # of 20


def test_all_schedules_are_run_until_one_fails(backend: str) -> None:
    with pytest.raises(RaceFound) as caught:
        explore_all(lost_update, backend=backend)

    race = caught.value
    assert (race.backend, race.seed) == (backend, None)
    assert 1 <= race.tried < 30


def test_more_schedules_than_the_limit_are_no_proof(backend: str) -> None:
    with pytest.raises(RuntimeError, match="more than 5 schedules"):
        explore_all(steps_of(2, 1), backend=backend, limit=5)

    assert explore_all(steps_of(2, 1), backend=backend, limit=6) == 6


def test_a_scenario_that_differs_from_run_to_run_cannot_be_counted_through(backend: str) -> None:
    runs = 0

    async def scenario() -> None:
        nonlocal runs
        runs += 1
        await steps_of(2 if runs < 3 else 3, 1)()

    with pytest.raises(RuntimeError, match="differs from run to run"):
        explore_all(scenario, backend=backend)


# --- the same again -----------------------------------------------------------------------------

ORDER = """
import sys
import anyio
from anyio.lowlevel import checkpoint
from minisession.testing import explore

log = []

async def sleeper(number, event):
    try:
        await event.wait()
    finally:
        log.append(f"c{number}")

async def stepper(number):
    for step in range(3):
        log.append(f"s{number}")
        await checkpoint()

async def scenario():
    log.append("\\n")
    async with anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(sleeper, number, anyio.Event())
            tasks.start_soon(stepper, number)
        await anyio.to_thread.run_sync(log.append, "t")
        await anyio.sleep(1)
        tasks.cancel_scope.cancel()

explore(scenario, backend=sys.argv[1], seeds=range(10))
print(*log)
"""


def test_the_same_seeds_make_the_same_orders_in_every_process(backend: str) -> None:
    script = textwrap.dedent(ORDER)

    orders = [
        subprocess.run(
            [sys.executable, "-c", script, backend], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]

    assert orders[0] == orders[1]
    assert len(set(orders[0].splitlines()[1:])) == 10


def test_a_replay_is_the_same_run(backend: str) -> None:
    race = found(lost_update, backend)

    with pytest.raises(RaceFound) as caught:
        replay(lost_update, race.trace, backend=backend)

    assert caught.value.trace == race.trace
    assert str(caught.value).startswith("AssertionError: 1 of 2")


def test_what_ran_before_changes_nothing(backend: str) -> None:
    alone = found(deep_race, backend)

    found(two_locks, backend)
    explore(steps_of(3, 3), backend=backend, seeds=range(7))

    assert (found(deep_race, backend).seed, found(deep_race, backend).trace) == (
        alone.seed,
        alone.trace,
    )


def test_the_backend_is_left_as_it_was(backend: str) -> None:
    found(two_locks, backend)

    async def program() -> float:
        began = anyio.current_time()
        await anyio.sleep(0.01)
        await anyio.to_thread.run_sync(list)
        return anyio.current_time() - began

    assert anyio.run(program, backend=backend) >= 0.01
    with pytest.raises(RuntimeError, match="none is running"):
        virtual_time()


# --- what is found ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "problem"),
    [
        (lost_update, "AssertionError: 1 of 2"),
        (deep_race, "AssertionError: overtaken"),
        (two_locks, "Stuck: nothing is ready and no timer runs"),
    ],
)
def test_a_planted_race_is_found_and_said_how_to_see_again(
    backend: str, scenario: Scenario, problem: str
) -> None:
    race = found(scenario, backend)

    lines = str(race).splitlines()
    assert lines[0].startswith(problem)
    assert f"found on {backend} in schedule {race.tried}, seed {race.seed}." in str(race)
    assert lines[-1] == f"    replay({scenario.__name__}, {race.trace!r}, backend={backend!r})"
    assert len(race.trace.split()) <= 4


def test_a_deadlock_shows_where_each_task_waits(backend: str) -> None:
    message = str(found(two_locks, backend))

    for name in ("Ada", "Bob"):
        assert re.search(
            rf"  {name} waits at test_races.py:\d+, in take: async with second:", message
        )
    assert "async with anyio.create_task_group() as tasks:" in message


async def shielded_for_ever() -> None:
    with anyio.CancelScope(shield=True):
        await anyio.Event().wait()


async def deaf() -> None:
    while True:
        try:
            await anyio.Event().wait()
        except BaseException:
            await checkpoint()


async def round_and_round() -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(forever)


async def forever() -> None:
    while True:
        await checkpoint()


@pytest.mark.parametrize(
    ("scenario", "problem"),
    [
        (shielded_for_ever, "Stuck: nothing is ready"),
        (round_and_round, "Endless: after 3,000 steps the scenario has not ended"),
    ],
)
def test_what_never_ends_is_ended(
    backend: str, scenario: Scenario, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "MAX_STEPS", 3_000)

    assert str(found(scenario, backend, 1)).startswith(problem)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its last words
def test_what_does_not_even_let_itself_be_cancelled_is_ended(backend: str) -> None:
    assert str(found(deaf, backend, 1)).startswith("Stuck: nothing is ready")
    gc.collect()


@pytest.mark.parametrize("error", [ValueError("no"), BaseException("really"), OSError()])
def test_every_exception_is_found(backend: str, error: BaseException) -> None:
    async def fail() -> None:
        raise error

    async def scenario() -> None:
        async with anyio.create_task_group() as outer, anyio.create_task_group() as inner:
            inner.start_soon(fail)
            outer.start_soon(anyio.sleep, 1)

    race = found(scenario, backend, 1)

    first = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    assert str(race).splitlines()[0] == first
    assert isinstance(race.__cause__, BaseExceptionGroup)


def test_ctrl_c_is_no_race(backend: str) -> None:
    async def scenario() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explore(scenario, backend=backend)


# --- a schedule of one's own --------------------------------------------------------------------


def test_hypothesis_can_draw_the_order(backend: str) -> None:
    @given(data=st.data())
    @settings(max_examples=100, database=None, derandomize=True)
    def search(data: st.DataObject) -> None:
        replay(lost_update, Schedule(lambda n: data.draw(st.integers(0, n - 1))), backend=backend)

    with pytest.raises(RaceFound, match="1 of 2") as caught:
        search()

    assert len(caught.value.trace.split()) <= 4  # Hypothesis shrinks as well


def test_what_the_source_of_a_schedule_raises_is_no_race(backend: str) -> None:
    class Rejected(BaseException):
        pass

    def reject(_: int) -> int:
        raise Rejected

    with pytest.raises(Rejected):
        replay(lost_update, Schedule(reject), backend=backend)


# --- time ---------------------------------------------------------------------------------------


def test_time_passes_only_while_all_wait_and_then_at_once(backend: str) -> None:
    times: list[float] = []

    async def scenario() -> None:
        began = anyio.current_time()
        assert virtual_time() > 1_700_000_000
        times.append(virtual_time())
        with anyio.move_on_after(3600):
            await anyio.sleep(7200)
        times.append(virtual_time())
        assert anyio.current_time() - began == 3600
        await checkpoint()
        times.append(virtual_time())

    explore(scenario, backend=backend, seeds=range(2))

    start = times[0]
    assert times == [start, start + 3600, start + 3600] * 2


def test_who_wakes_at_the_same_time_runs_in_any_order(backend: str) -> None:
    orders = set()

    async def scenario() -> None:
        order: list[int] = []

        async def wait(number: int) -> None:
            await anyio.sleep(1)
            order.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(wait, number)
        orders.add(tuple(order))

    explore_all(scenario, backend=backend)

    assert len(orders) == 6


def test_an_idle_moment_can_be_waited_for(backend: str) -> None:
    async def scenario() -> None:
        event = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(steps_of(2, 3))
            tasks.start_soon(event.wait)
            await anyio.wait_all_tasks_blocked()
            assert event.statistics().tasks_waiting == 1
            event.set()

    explore(scenario, backend=backend, seeds=range(30))


# --- what cannot be -----------------------------------------------------------------------------


def test_another_backend_is_refused(backend: str) -> None:
    with pytest.raises(ValueError, match=f"backend='{backend}3': allowed are 'asyncio' and 'trio'"):
        explore(lost_update, backend=f"{backend}3")


def test_importing_the_kit_imports_neither_backend(backend: str) -> None:
    script = f"import minisession.testing, sys; print({backend!r} in sys.modules)"

    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert run.stdout == "False\n"
