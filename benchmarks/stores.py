"""What does a store cost: commits and loads in a second, stalls of the loop, room, round trips?

    python benchmarks/stores.py [URL ...] [--grow [N]] [--rounds 3] [--seconds 2]
                                [--concurrency 1,32,256,2000] [--json FILE] [--plot FILE.svg]

    python benchmarks/stores.py memory:// 'sqlite:///{folder}/sessions.db' redis://127.0.0.1:6379/9

Sessions of eight values of 60 bytes; each task commits a change of one key again and again, or
loads. A stall is how much later than asked a task that sleeps for one millisecond wakes up: it
counts how long all others take when they are ready at once, too. What is shown is the median of the
rounds, in which the stores take turns. `{folder}` is a new folder for temporary files, which should
be on a disk like that of production (`TMPDIR=/srv/tmp`). A server is used as it is, and the
sessions are removed in the end; for its round trips, a request is read and one is written through a
relay that counts. With `--grow`, how commits and loads change from a thousand sessions to a
million: of the newest thousand of them, as visitors come and go, and of any, as they never do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
from _bars import Bar, draw
from _relay import Relay
from _stores import Gauge, commit, fill, forget, load, names, place, room, scheme

from minisession import SessionManager
from minisession.abc import LoadsNowait, Store
from minisession.bench import Progress
from minisession.bench.gauges import machine
from minisession.stores import open_store
from minisession.stores.memory import MemoryStore

CONCURRENCY = (1, 32, 256, 2000)
BACKENDS = ("asyncio", "trio")
SESSIONS = 1000
GROWTH = (1_000, 10_000, 100_000, 1_000_000)
GROWTH_TASKS = 32
ACTIVE = 1_000  # the newest sessions: those that visitors use now
GROW = "see what changes up to so many sessions (a million, which takes minutes)"
WARM_UP = 0.4  # seconds
ROOM_SESSIONS = 20_000
REQUESTS = 100
SERVERS = ("redis", "rediss", "redis+sentinel", "redis+cluster")

T = TypeVar("T")
Figures = dict[tuple[str, int], list[float]]
"""What was measured, by what was done and in how many tasks."""

Work = Callable[[Store, Sequence[str], float], Awaitable[None]]
WORK: dict[str, Work] = {"commit": commit, "load": load}


@dataclass(frozen=True)
class Result:
    store: str
    backend: str
    what: str
    tasks: int
    sessions: int
    per_second: float
    p50_ms: float
    p99_ms: float
    longest_stall_ms: float
    cpu_us: float
    """Processor time of the whole process for each operation: says something on a busy machine."""


@dataclass(frozen=True)
class Room:
    store: str
    bytes_per_session: float


@dataclass(frozen=True)
class RoundTrips:
    store: str
    of_a_read: float
    of_a_write: float


async def measured(
    store: Store, handles: Sequence[str], work: Work, tasks: int, seconds: float
) -> list[float]:
    """Work in so many tasks; return per second, p50, p99, the longest stall, and CPU.

    A part of a second goes before, in which all the tasks begin at once and then fall apart.
    """
    gauge = Gauge()
    now = time.time()
    is_over = False
    at_once = isinstance(store, MemoryStore) or (work is load and isinstance(store, LoadsNowait))

    async def repeat() -> None:
        while not is_over:
            before = time.perf_counter()
            await work(store, handles, now)
            gauge.latencies.append(time.perf_counter() - before)
            if at_once:
                await anyio.lowlevel.checkpoint()  # a request would let the others run, too

    async with anyio.create_task_group() as outer:
        outer.start_soon(gauge.watch)
        async with anyio.create_task_group() as group:
            for _ in range(tasks):
                group.start_soon(repeat)
            await anyio.sleep(WARM_UP)
            gauge.reset()
            start, cpu = time.perf_counter(), time.process_time()
            await anyio.sleep(seconds)
            is_over = True
        elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
        outer.cancel_scope.cancel()
    done = len(gauge.latencies)
    quantiles = gauge.latency_ms(0.5), gauge.latency_ms(0.99)
    return [done / elapsed, *quantiles, gauge.longest_stall_ms, cpu / done * 1e6]


async def one_round(
    url: str, concurrency: Sequence[int], seconds: float, progress: Progress
) -> Figures:
    """Measure everything in one store."""
    found: Figures = {}
    async with open_store(url) as store:
        handles = await fill(store, SESSIONS, progress)
        steps = [(what, tasks) for what in WORK for tasks in concurrency]
        progress.begin(f"{scheme(url)}: {len(steps)} measurements", len(steps))
        for done, (what, tasks) in enumerate(steps):
            found[what, tasks] = await measured(store, handles, WORK[what], tasks, seconds)
            progress.update(done + 1)
        progress.clear()
        await leave(store, url, handles)
    return found


async def growing(url: str, seconds: float, most: int, progress: Progress) -> dict[int, Figures]:
    """Measure in one store, which is filled more and more."""
    found: dict[int, Figures] = {}
    handles: list[str] = []
    async with open_store(url) as store:
        for sessions in (each for each in GROWTH if each <= most):
            handles += await fill(store, sessions - len(handles), progress)
            for name, chosen in (("newest", handles[-ACTIVE:]), ("any", handles)):
                for what, work in WORK.items():
                    figures = await measured(store, chosen, work, GROWTH_TASKS, seconds)
                    found.setdefault(sessions, {})[f"{what} of {name}", GROWTH_TASKS] = figures
        await leave(store, url, handles)
    return found


async def leave(store: Store, url: str, handles: Sequence[str]) -> None:
    """Leave a server as it was; other stores go with their folder."""
    if scheme(url) in SERVERS:
        await forget(store, handles)


def medians(rounds: Sequence[Figures]) -> Figures:
    """The median of each figure."""
    return {
        which: [
            statistics.median(values) for values in zip(*(r[which] for r in rounds), strict=True)
        ]
        for which in rounds[0]
    }


def compare(options: argparse.Namespace, progress: Progress) -> list[Result]:
    """All stores side by side, on both backends; in each round each has its turn."""
    rounds: dict[tuple[str, str], list[Figures]] = {}
    for _ in range(options.rounds):
        for url in options.urls:
            for backend in BACKENDS:
                asked = options.concurrency, options.seconds, progress
                rounds.setdefault((url, backend), []).append(run(url, backend, one_round, *asked))
    return [
        Result(scheme(url), backend, what, tasks, SESSIONS, *figures)
        for (url, backend), found in rounds.items()
        for (what, tasks), figures in medians(found).items()
    ]


def grow(options: argparse.Namespace, progress: Progress) -> list[Result]:
    """The same with more and more sessions in the store."""
    return [
        Result(scheme(url), BACKENDS[0], what, tasks, sessions, *figures)
        for url in options.urls
        for sessions, found in run(
            url, BACKENDS[0], growing, options.seconds, options.grow, progress
        ).items()
        for (what, tasks), figures in found.items()
    ]


def run(url: str, backend: str, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Call a function with a place of its own, in a loop of its own."""
    with place(url) as own:
        return anyio.run(partial(function, own), *arguments, backend=backend)


async def room_of(url: str, progress: Progress) -> Room:
    """Fill a store, close it, and see how much larger it is."""
    async with open_store(url) as store:
        before = await room(store)
        handles = await fill(store, ROOM_SESSIONS, progress)
        if scheme(url) == "memory":
            return Room("memory", (await room(store) - before) / ROOM_SESSIONS)
    async with open_store(url) as store:
        after = await room(store)
        await leave(store, url, handles)
    return Room(scheme(url), (after - before) / ROOM_SESSIONS)


async def round_trips_of(url: str) -> RoundTrips:
    """Count what a request that reads and one that writes wait for, one after the other."""
    relay = Relay()
    async with relay.before(url) as through, SessionManager(through) as sessions:
        async with sessions.open() as session:
            session["n"] = 0
            await session.save()
            id = session.id

        async def request(*, writes: bool) -> None:
            async with sessions.open(id) as session:
                n = session["n"]
                if writes:
                    session["n"] = n + 1

        counts: list[float] = []
        for writes in (False, True):
            await request(writes=writes)
            before = relay.round_trips
            for _ in range(REQUESTS):
                await request(writes=writes)
            counts.append((relay.round_trips - before) / REQUESTS)
        async with sessions.open(id) as session:
            session.destroy()
    return RoundTrips(scheme(url), *counts)


# --- how it is shown ---------------------------------------------------------------------------


def table(results: Sequence[Result]) -> str:
    """One line for each result, in GitHub's Markdown."""
    head = (
        "| store | loop | what | sessions | tasks | per second | p50 ms | p99 ms"
        " | longest stall ms | CPU µs |"
    )
    lines = [
        f"| {r.store} | {r.backend} | {r.what} | {r.sessions:,} | {r.tasks:,} | {r.per_second:,.0f}"
        f" | {r.p50_ms:.2f} | {r.p99_ms:.2f} | {r.longest_stall_ms:.1f} | {r.cpu_us:.0f} |"
        for r in results
    ]
    return "\n".join([head, "|---" * 10 + "|", *lines])


def panels(results: Sequence[Result], growth: Sequence[Result]) -> dict[str, dict[str, Bar]]:
    """What is drawn: operations per second, side by side, and as the stores grow."""
    drawn: dict[str, dict[str, Bar]] = {}
    for r in results:
        panel = drawn.setdefault(f"{r.what}s per second, {r.tasks:,} tasks", {})
        panel[f"{r.store}, {r.backend}"] = Bar(r.per_second, _words(r))
    for r in growth:
        panel = drawn.setdefault(f"{r.store}: {r.what} session, per second, as it grows", {})
        panel[f"{r.sessions:,} sessions"] = Bar(r.per_second, _words(r))
    return drawn


def _words(r: Result) -> str:
    return f"p99 {r.p99_ms:.1f} ms, {r.cpu_us:,.0f} µs"


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("urls", metavar="URL", nargs="*", default=names())
    parser.add_argument("--concurrency", type=_numbers, default=CONCURRENCY, metavar="N,N,...")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is shown")
    parser.add_argument("--grow", type=int, nargs="?", const=GROWTH[-1], metavar="N", help=GROW)
    parser.add_argument("--json", type=Path, help="write everything that was measured")
    parser.add_argument("--plot", type=Path, help="draw it as an SVG")
    options = parser.parse_args()
    progress = Progress(sys.stderr)

    results = compare(options, progress)
    here = [url for url in options.urls if scheme(url) not in SERVERS]  # a server says no sizes
    rooms = [run(url, BACKENDS[0], room_of, progress) for url in here]
    trips = [run(u, BACKENDS[0], round_trips_of) for u in options.urls if scheme(u) in SERVERS]
    growth = grow(options, progress) if options.grow else []
    print(table([*results, *growth]), end="\n\n")
    for each in rooms:
        print(f"{each.store}: {each.bytes_per_session:,.0f} bytes for each session")
    for trip in trips:
        print(f"{trip.store}: {trip.of_a_read} round trips to read, {trip.of_a_write} to write")
    if options.json:
        found = {"machine": machine(), "results": results, "growth": growth}
        found |= {"room": rooms, "round_trips": trips}
        options.json.write_text(json.dumps(found, indent=2, default=asdict) + "\n")
    if options.plot:
        options.plot.write_text(draw("Stores", panels(results, growth)))


if __name__ == "__main__":
    main()
