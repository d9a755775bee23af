"""Kill -9 at any moment loses no acknowledged write (P4)."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from minisession.abc import Record
from minisession.stores.sqlite import SQLiteStore

from .kit import NOW

ROUNDS = 20
WRITERS = 16

# Says "writer number" for each write that was acknowledged, and goes on until it is killed.
SCRIPT = f"""
import os, sys, anyio
from minisession.abc import Committed
from minisession.stores.sqlite import SQLiteStore
from tests.stores.kit import NOW, birth, commit, write

store = SQLiteStore(sys.argv[1])
start = int(sys.argv[2])

async def writer(name):
    for number in range(start, start + 1_000_000):
        value = b"%d" % number
        outcome = await commit(store, write(name, {{"a": value, "b": value}}))
        assert outcome == Committed(0), outcome
        os.write(1, f"{{name}} {{number}}\\n".encode())

async def main():
    names = [f"w{{n}}" for n in range({WRITERS})]
    await store.commit([birth(name) for name in names], NOW)
    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(writer, name)

anyio.run(main, backend=sys.argv[3])
"""


def acknowledged_before_the_kill(path: Path, start: int, backend: str) -> dict[str, int]:
    """Kill a process that writes after some acknowledgements; return the last of each writer."""
    arguments = [sys.executable, "-c", SCRIPT, str(path), str(start), backend]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(random.randint(1, 400))]
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.read().splitlines(keepends=True)
    process.stdout.close()

    assert process.wait() == -signal.SIGKILL
    whole = [line.decode().split() for line in lines if line.endswith(b"\n")]
    return {name: int(number) for name, number in whole}


@pytest.mark.slow
def test_no_acknowledged_write_is_missing_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    store = SQLiteStore(path)

    async def load(name: str) -> Record | None:
        return await store.load(name, NOW)

    for round_ in range(ROUNDS):
        start = round_ * 1_000_000
        acknowledged = acknowledged_before_the_kill(path, start, ["asyncio", "trio"][round_ % 2])

        assert acknowledged
        for name, number in acknowledged.items():
            record = anyio.run(load, name)
            assert record is not None
            assert int(record.items["a"]) >= number
            assert record.items["a"] == record.items["b"]  # one change is one step
    anyio.run(store.__aexit__, None, None, None)

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
