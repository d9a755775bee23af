"""Does anybody see another's session, with many thousands of sessions alive in one event loop?

Runs a tenth, a quarter and all of the visitors, one crowd after the other, and puts together what
was measured. What a visitor does is said in `visitors` and `shop`.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import AsyncIterable, Callable, Coroutine
from datetime import date
from typing import Any, Final

import anyio

from minisession import SessionConfig, SessionManager, SessionMiddleware, StoreError

from .gauges import machine, resident_memory
from .progress import Progress
from .report import Mixture, Report, Run
from .shop import shop
from .visitors import Crowd, Gate, Manner, Visitor

SHARES: Final = (10, 4, 1)  # run so many parts of all: enough points to see a curve
WARM_UP: Final = 100
"""Visitors of the first run, after which all code has run once. The memory that the process has
while they are alive is subtracted later, so that only what further sessions add is counted."""
ENOUGH: Final = 1000  # sessions; the pages that fewer take say little of each
REPORT_EVERY: Final = 0.1  # seconds

# Everybody saves at once here, so that a save waits for thousands of others: the deadline of a
# server would tell of the crowd, not of a store that hangs.
CONFIG: Final = SessionConfig(save_timeout=600)


def measure(tasks: int, backend: str, store: str, seed: int, progress: Progress) -> Report:
    """Run the benchmark on an event loop of its own.

    Raises:
        ConfigError: there is no such store.
        StoreError: the store cannot be opened.
        KeyboardInterrupt: Ctrl-C was pressed; all visitors have been cancelled.
    """
    SessionManager(store, CONFIG)  # refuses a wrong URL before anything is measured
    report = anyio.run(
        _measure_until_ctrl_c, tasks, backend, store, seed, progress, backend=backend
    )
    if report is None:
        raise KeyboardInterrupt
    return report


async def _measure_until_ctrl_c(
    tasks: int, backend: str, store: str, seed: int, progress: Progress
) -> Report | None:
    """Return None after Ctrl-C.

    Left to itself, Python raises KeyboardInterrupt between any two instructions. On trio these may
    be two with which a task group keeps its books, and then the event loop waits for ever.
    """
    report: Report | None = None
    failure: StoreError | None = None
    with anyio.open_signal_receiver(signal.SIGINT) as signals:
        async with anyio.create_task_group() as watch:
            watch.start_soon(_cancel_after_one, signals, watch.cancel_scope)
            try:
                report = await _measure(tasks, backend, store, seed, progress)
            except StoreError as error:
                failure = error  # not through the task group, which would wrap it
            watch.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return report


async def _cancel_after_one(signals: AsyncIterable[object], scope: anyio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


async def _measure(tasks: int, backend: str, store: str, seed: int, progress: Progress) -> Report:
    warm_up = await _run(WARM_UP, store, seed, 0, progress)
    floor = warm_up.memory
    *smaller, largest = [tasks // share for share in SHARES]
    runs = [await _run(count, store, seed, floor, progress) for count in smaller]
    # In this order each needs more memory than what came before, so that no run is flattered by
    # memory that an earlier one has left behind.
    without_session = await _memory_without_session(largest, seed, floor, progress)
    runs.append(await _run(largest, store, seed, floor, progress))
    return Report(
        backend=backend,
        store=store.partition("://")[0],
        seed=seed,
        warm_up=warm_up,
        runs=runs,
        memory_without_session=without_session,
        machine=machine(),
        date=date.today().isoformat(),
    )


async def _run(tasks: int, store: str, seed: int, floor: int, progress: Progress) -> Run:
    """Let so many visitors come, stay until all are there, and leave."""
    memory: list[int] = []
    async with SessionManager(store, CONFIG) as manager:
        app = SessionMiddleware(shop, manager)
        crowd = Crowd(app, Gate(tasks, lambda: memory.append(resident_memory() - floor)))
        visitors = _visitors(tasks, seed, crowd)
        requests = sum(visitor.manner.requests for visitor in visitors)
        progress.begin(f"{tasks:,} visitors", requests)
        begun, cpu = time.perf_counter(), time.process_time()
        await _all_at_once([visitor.visit for visitor in visitors], crowd, progress)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    return Run(
        tasks=tasks,
        alive=crowd.gate.held,
        requests=crowd.done,
        mixture=_mixture(visitors, crowd),
        seconds=seconds,
        cpu_seconds=cpu,
        memory=memory[0],
        memory_per_session=_of_each(memory[0], crowd.gate.held),
        latencies=sorted(crowd.latencies),
        findings=crowd.findings,
    )


async def _memory_without_session(
    tasks: int, seed: int, floor: int, progress: Progress
) -> float | None:
    """Return the bytes that an open request takes, of as many, without any session."""
    memory: list[int] = []
    crowd = Crowd(shop, Gate(tasks, lambda: memory.append(resident_memory() - floor)))
    progress.begin(f"{tasks:,} requests without a session", tasks)
    visitors = _visitors(tasks, seed, crowd)
    await _all_at_once([visitor.stay for visitor in visitors], crowd, progress)
    return _of_each(memory[0], tasks)


def _of_each(memory: int, alive: int) -> float | None:
    """Return the bytes that each of so many takes, if they are enough to tell."""
    return memory / (alive - WARM_UP) if alive >= ENOUGH else None


def _visitors(tasks: int, seed: int, crowd: Crowd) -> list[Visitor]:
    rng = random.Random(seed)  # noqa: S311  # manners are no secrets
    return [Visitor(number, Manner.drawn(rng), crowd) for number in range(tasks)]


async def _all_at_once(
    visits: list[Callable[[], Coroutine[Any, Any, None]]], crowd: Crowd, progress: Progress
) -> None:
    async with anyio.create_task_group() as reporting:
        reporting.start_soon(_report, crowd, progress)
        async with anyio.create_task_group() as tasks:
            for visit in visits:
                tasks.start_soon(visit)
        reporting.cancel_scope.cancel()
    progress.end()


async def _report(crowd: Crowd, progress: Progress) -> None:
    while True:
        progress.update(crowd.done)
        await anyio.sleep(REPORT_EVERY)


def _mixture(visitors: list[Visitor], crowd: Crowd) -> Mixture:
    manners = [visitor.manner for visitor in visitors]
    return Mixture(
        with_children=sum(manner.has_children for manner in manners),
        with_threads=sum(manner.uses_a_thread for manner in manners),
        streams=sum(manner.streams for manner in manners),
        logins=sum(manner.logs_in for manner in manners),
        hung_up=crowd.hung_up,
    )
