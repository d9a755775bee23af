"""What the tests of stores share: changes without ceremony, and other processes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import anyio

from minisession.abc import Change, Committed, Create, Outcome, Store, Write

NOW = 1_800_000_000.0
END = NOW + 3600
LIMIT = 1 << 20


def birth(handle: str = "h", **items: bytes) -> Create:
    return Create(handle, bytes(32), items, NOW, END, END, LIMIT)


def write(handle: str = "h", items: Mapping[str, bytes | None] | None = None) -> Write:
    return Write(handle, 0, END, LIMIT, {"k": b"v"} if items is None else items)


async def commit(store: Store, change: Change) -> Outcome:
    (outcome,) = await store.commit([change], NOW)
    return outcome


async def born(store: Store, handle: str = "h", **items: bytes) -> None:
    assert await commit(store, birth(handle, **items)) == Committed(0)


async def items(store: Store, handle: str = "h") -> Mapping[str, bytes] | None:
    record = await store.load(handle, NOW)
    return None if record is None else record.items


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Look again and again, until a condition holds."""
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110  # what a thread does sets no event
            await anyio.sleep(0.001)


def run_script(script: str, *arguments: str | Path, before: Sequence[str] = ()) -> str:
    """Run a script in a Python of its own and return what it prints."""
    run = subprocess.run(
        [*before, sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()
