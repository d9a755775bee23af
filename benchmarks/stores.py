"""How many changes and loads does a store do in a second, and how long does the loop stand still?

    python benchmarks/stores.py [--json] [--seconds 2] [--rounds 3]

Sessions of eight values of 60 bytes; each task commits a change of one key again and again, or
loads. A stall is how much later than asked a task that sleeps for one millisecond wakes up. What is
shown is the median of the rounds; SQLite writes to the directory for temporary files, which should
be on a disk like that of production.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import anyio

from minisession.abc import Committed, Create, LoadsNowait, Store, Write
from minisession.stores.memory import MemoryStore
from minisession.stores.sqlite import SQLiteStore

SESSIONS = 1000
VALUES = 8
BYTES = 60
LIMIT = 1 << 20
CONCURRENCY = (1, 32, 256)


@dataclass(frozen=True)
class Result:
    store: str
    backend: str
    what: str
    concurrency: int
    per_second: float
    p50_ms: float
    p99_ms: float
    longest_stall_ms: float
    cpu_us: float
    """Processor time of the whole process for each operation: says something on a busy machine."""


Work = Callable[[Store, float], Awaitable[None]]


def handle() -> str:
    return f"session {random.randrange(SESSIONS):06}"


async def one_commit(store: Store, now: float) -> None:
    key = f"key {random.randrange(VALUES)}"
    change = Write(handle(), 0, now + 3600 + random.random(), LIMIT, {key: b"w" * BYTES})
    (outcome,) = await store.commit([change], now)
    assert isinstance(outcome, Committed)
    if isinstance(store, MemoryStore):  # which itself never waits
        await anyio.lowlevel.checkpoint()


async def one_load(store: Store, now: float) -> None:
    assert isinstance(store, LoadsNowait)
    assert store.load_nowait(handle(), now) is not None
    await anyio.lowlevel.checkpoint()  # a request would let the others run too


WORK: dict[str, Work] = {"commit": one_commit, "load": one_load}


async def fill(store: Store, now: float) -> None:
    items = {f"key {number}": b"v" * BYTES for number in range(VALUES)}
    end = now + 3600
    changes = [
        Create(f"session {number:06}", bytes(32), items, now, end, end, LIMIT)
        for number in range(SESSIONS)
    ]
    await store.commit(changes, now)


async def watch(stalls: list[float]) -> None:
    while True:
        before = time.perf_counter()
        await anyio.sleep(0.001)
        stalls.append(time.perf_counter() - before - 0.001)


async def measure(store: Store, work: Work, tasks: int, seconds: float) -> tuple[float, ...]:
    now = time.time()
    latencies: list[float] = []
    stalls: list[float] = [0.0]
    end = time.perf_counter() + seconds

    async def repeat() -> None:
        while (before := time.perf_counter()) < end:
            await work(store, now)
            latencies.append(time.perf_counter() - before)

    async with store, anyio.create_task_group() as outer:
        await fill(store, now)
        outer.start_soon(watch, stalls)
        start, cpu = time.perf_counter(), time.process_time()
        async with anyio.create_task_group() as group:
            for _ in range(tasks):
                group.start_soon(repeat)
        elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
        outer.cancel_scope.cancel()
    cuts = statistics.quantiles(latencies, n=100)
    per_second, cpu_us = len(latencies) / elapsed, cpu / len(latencies) * 1e6
    return per_second, cuts[49] * 1e3, cuts[98] * 1e3, max(stalls) * 1e3, cpu_us


def median_of(
    rounds: int, store: str, backend: str, what: str, tasks: int, seconds: float
) -> Result:
    runs = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            made = MemoryStore() if store == "memory" else SQLiteStore(Path(folder) / "s.db")
            runs.append(anyio.run(measure, made, WORK[what], tasks, seconds, backend=backend))
    return Result(store, backend, what, tasks, *map(statistics.median, zip(*runs, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is shown")
    options = parser.parse_args()

    results = [
        median_of(options.rounds, store, backend, what, tasks, options.seconds)
        for store in ("memory", "sqlite")
        for backend in ("asyncio", "trio")
        for what in WORK
        for tasks in (CONCURRENCY if what == "commit" else (32,))
    ]
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
        return
    print("store   backend  what    tasks   per second   p50 ms   p99 ms  longest stall ms  CPU µs")
    for r in results:
        print(
            f"{r.store:7} {r.backend:8} {r.what:7} {r.concurrency:5} {r.per_second:12,.0f}"
            f" {r.p50_ms:8.3f} {r.p99_ms:8.3f} {r.longest_stall_ms:17.1f}"
            f" {r.cpu_us:7.1f}"
        )


if __name__ == "__main__":
    main()
