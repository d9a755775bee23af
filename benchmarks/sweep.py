"""Does anybody notice when a million expired sessions are swept away?

    python benchmarks/sweep.py [--expired 1000000] [--living 10000] [--backend asyncio]
                               [--store URL] [--json FILE]

The sweeper of a `SessionManager` removes them, without the minute that it waits otherwise, while 32
visitors load their sessions and change them, a hundred times in a second at most. The same visitors
are measured before, without a sweep. A stall is how much later than asked a task that sleeps for
one millisecond wakes up. Exits with 1 if p99 of the loads during the sweep was 5 ms or more.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import anyio
from _stores import HOUR, Gauge, commit, fill, load, place

from minisession import SessionManager, _manager
from minisession.abc import Inspects, Store
from minisession.bench import Progress
from minisession.bench.gauges import machine
from minisession.stores import open_store

VISITORS = 32
PAUSE = 0.01  # seconds between two visits
ALONE = 30.0  # seconds without a sweep
TARGET_MS = 5.0


@dataclass(frozen=True)
class Seen:
    what: str
    seconds: float
    loads_per_second: float
    load_p50_ms: float
    load_p99_ms: float
    load_longest_ms: float
    commits_per_second: float
    commit_p50_ms: float
    commit_p99_ms: float
    longest_stall_ms: float


async def seen(
    what: str, store: Store, handles: Sequence[str], until: Callable[[], Awaitable[None]]
) -> Seen:
    """Have the visitors visit until something is over; return what they have seen."""
    loads, commits = Gauge(), Gauge()

    async def visit() -> None:
        while True:
            for gauge, work in ((loads, load), (commits, commit)):
                before = time.perf_counter()
                await work(store, handles, time.time())
                gauge.latencies.append(time.perf_counter() - before)
            await anyio.sleep(PAUSE)

    async with anyio.create_task_group() as tasks:
        start = time.perf_counter()
        tasks.start_soon(loads.watch)
        for _ in range(VISITORS):
            tasks.start_soon(visit)
        await until()
        elapsed = time.perf_counter() - start
        tasks.cancel_scope.cancel()
    return Seen(
        what=what,
        seconds=elapsed,
        loads_per_second=len(loads.latencies) / elapsed,
        load_p50_ms=loads.latency_ms(0.5),
        load_p99_ms=loads.latency_ms(0.99),
        load_longest_ms=loads.latency_ms(1.0),
        commits_per_second=len(commits.latencies) / elapsed,
        commit_p50_ms=commits.latency_ms(0.5),
        commit_p99_ms=commits.latency_ms(0.99),
        longest_stall_ms=loads.longest_stall_ms,
    )


async def measured(url: str, expired: int, living: int, progress: Progress) -> list[Seen]:
    """Fill a store, visit it without a sweep, and then with one."""

    async def alone() -> None:
        await anyio.sleep(ALONE)

    async def swept() -> None:
        progress.begin(f"sweeping {expired:,} sessions", expired)
        assert isinstance(store, Inspects), "a store that cannot say what waits for its purge"
        while left := (await store.inspect(time.time())).expired:
            progress.update(expired - left)
            await anyio.sleep(1)
        progress.clear()

    async with open_store(url) as store:
        await fill(store, expired, progress, age=2 * HOUR)
        handles = await fill(store, living, progress)
        without = await seen("without", store, handles, alone)
        async with SessionManager(store):
            return [without, await seen("with a sweep", store, handles, swept)]


def table(found: Sequence[Seen]) -> str:
    """One line without the sweep, one with it, in GitHub's Markdown."""
    head = (
        "| | seconds | loads/s | p50 ms | p99 ms | longest ms"
        " | commits/s | p50 ms | p99 ms | longest stall ms |"
    )
    lines = [
        f"| {s.what} | {s.seconds:.0f} | {s.loads_per_second:,.0f} | {s.load_p50_ms:.2f}"
        f" | {s.load_p99_ms:.2f} | {s.load_longest_ms:.1f} | {s.commits_per_second:,.0f}"
        f" | {s.commit_p50_ms:.1f} | {s.commit_p99_ms:.1f} | {s.longest_stall_ms:.1f} |"
        for s in found
    ]
    return "\n".join([head, "|---" * 10 + "|", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--expired", type=int, default=1_000_000)
    parser.add_argument("--living", type=int, default=10_000)
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument("--store", default="sqlite:///{folder}/sessions.db", metavar="URL")
    parser.add_argument("--json", type=Path, help="write everything that was measured")
    options = parser.parse_args()
    _manager.SWEEP_EVERY = 0.1  # type: ignore[misc]  # seconds; nobody wants to wait for a minute
    progress = Progress(sys.stderr)

    with place(options.store) as url:
        asked = url, options.expired, options.living, progress
        found = anyio.run(measured, *asked, backend=options.backend)
    print(table(found))
    if options.json:
        values = {"machine": machine(), **{each.what: asdict(each) for each in found}}
        options.json.write_text(json.dumps(values, indent=2) + "\n")
    if found[-1].load_p99_ms >= TARGET_MS:
        sys.exit(f"p99 of the loads during the sweep was {found[-1].load_p99_ms:.1f} ms")


if __name__ == "__main__":
    main()
