"""What the benchmarks of stores share: places to measure in, sessions to fill them with, gauges.

A session here has eight values of 60 bytes. Handles are random, as they are in life: in the order
of their making they would lie side by side, which no store ever sees.
"""

from __future__ import annotations

import random
import secrets
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio

from minisession.abc import Committed, Create, Destroy, Inspects, LoadsNowait, Store, Write
from minisession.bench import Progress
from minisession.bench.gauges import quantile, resident_memory

VALUES = 8
BYTES = 60
LIMIT = 1 << 20
HOUR = 3600.0
FILL_STEP = 1000  # sessions in one commit
TICK = 0.001  # seconds between two looks at the loop


def names() -> list[str]:
    """What can be named on the command line, with `{folder}` for a new folder each time."""
    return ["memory://", "sqlite:///{folder}/sessions.db"]


@contextmanager
def place(url: str) -> Iterator[str]:
    """Make room for one run: a store in files is new each time, a server stays what it is."""
    with tempfile.TemporaryDirectory(prefix="minisession-bench-") as folder:
        yield url.format(folder=folder)


def scheme(url: str) -> str:
    """How a store is called in a table."""
    return url.partition(":")[0]


@dataclass
class Gauge:
    """What one run has shown."""

    latencies: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=lambda: [0.0])

    async def watch(self) -> None:
        """Sleep for a moment again and again: waking up late means that the loop stood still."""
        while True:
            before = time.perf_counter()
            await anyio.sleep(TICK)
            self.stalls.append(time.perf_counter() - before - TICK)

    def reset(self) -> None:
        """Forget what was seen until now."""
        self.latencies.clear()
        self.stalls[:] = [0.0]

    def latency_ms(self, share: float) -> float:
        """A quantile of the times that operations took."""
        return quantile(sorted(self.latencies), share) * 1e3

    @property
    def longest_stall_ms(self) -> float:
        return max(self.stalls) * 1e3


def births(number: int, now: float, lives: float = HOUR) -> list[Create]:
    """Changes that make so many sessions, which live for so many seconds from now."""
    items = {f"key {each}": b'"%s"' % (b"v" * (BYTES - 2)) for each in range(VALUES)}
    return [
        Create(secrets.token_urlsafe(16), bytes(32), items, now, now + lives, now + lives, LIMIT)
        for _ in range(number)
    ]


async def fill(
    store: Store, number: int, progress: Progress, lives: float = HOUR, age: float = 0.0
) -> list[str]:
    """Make sessions as of `age` seconds ago; return their handles."""
    handles: list[str] = []
    progress.begin(f"{number:,} sessions", number)
    for start in range(0, number, FILL_STEP):
        now = time.time() - age
        changes = births(min(FILL_STEP, number - start), now, lives)
        outcomes = await store.commit(changes, now)
        assert outcomes == [Committed(0)] * len(changes), outcomes
        handles += [change.handle for change in changes]
        progress.update(len(handles))
    progress.clear()
    return handles


async def forget(store: Store, handles: Iterable[str]) -> None:
    """End sessions, to leave a server as it was."""
    for some in _in_steps(list(handles)):
        await store.commit([Destroy(handle, None) for handle in some], time.time())


def _in_steps(handles: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(handles), FILL_STEP):
        yield handles[start : start + FILL_STEP]


async def commit(store: Store, handles: Sequence[str], now: float) -> None:
    """Change one value of one session."""
    key = f"key {random.randrange(VALUES)}"
    end = now + HOUR + random.random()
    change = Write(random.choice(handles), 0, end, LIMIT, {key: b"w" * BYTES})
    (outcome,) = await store.commit([change], now)
    assert outcome == Committed(0), outcome


async def load(store: Store, handles: Sequence[str], now: float) -> None:
    """Load one session."""
    handle = random.choice(handles)
    if isinstance(store, LoadsNowait):
        assert store.load_nowait(handle, now) is not None
    else:
        assert await store.load(handle, now) is not None


async def room(store: Store) -> int:
    """The bytes that all sessions take: where they are kept, or in this process."""
    if isinstance(store, Inspects):
        inspection = await store.inspect(time.time())
        if inspection.bytes is not None:
            return inspection.bytes - (inspection.free or 0)
    return resident_memory()
