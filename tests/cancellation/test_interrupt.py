"""Ctrl-C at every moment of a commit: the store is flushed, and the process ends as it should.

On asyncio SIGINT cancels the main task natively; on trio it raises KeyboardInterrupt in the main
task, wherever that is. Nothing that was written before is lost, whether somebody runs the manager
or the store is closed by the end of the interpreter.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from minisession import SessionManager
from minisession._loop import current_loop
from tests.cancellation.left import descriptors
from tests.cancellation.operations import OPERATIONS
from tests.cancellation.trial import BEFORE, Operation, Trial
from tests.command import GRACE, environment
from tests.effort import SOAK, Tally
from tests.tripwire import MOST_POINTS, Tripwire

INTERRUPTED = [
    each
    for each in OPERATIONS
    if not each.has_siblings
    and (SOAK or str(each) in ("writes_and_saves", "logs_in", "writes_while_a_write_is_on_its_way"))
]


PROGRAM = Path(__file__).with_name("interrupted.py")


def interrupt(_: object) -> None:
    """Have the signal arrive while the task waits, as it mostly does."""
    current_loop()(partial(signal.raise_signal, signal.SIGINT))


class Program:
    """What a script does with a session: `anyio.run(program.main)`, and a Ctrl-C at some point."""

    def __init__(self, folder: Path, operation: Operation) -> None:
        self.database = f"sqlite:///{folder / 'sessions.db'}"
        self.operation = operation

    async def begin(self) -> None:
        async with SessionManager(self.database) as sessions, sessions.open() as one:
            one.update(BEFORE)
            await one.save()
            self.trial = Trial(sessions, str(one.id))

    async def main(self, n: int) -> bool:
        """Do it, and be interrupted at the n-th suspension; tell whether it came to that."""
        wire = Tripwire(self._work(), n, interrupt)
        await wire
        return wire.has_tripped

    async def _work(self) -> None:
        async with SessionManager(self.database) as sessions:
            self.trial = Trial(sessions, self.trial.id)
            await self.operation.on(self.trial)

    async def check(self) -> None:
        """Look at what is stored, as the next process would."""
        async with SessionManager(self.database) as sessions:
            trial = Trial(sessions, self.trial.id, self.trial.new_id, self.trial.sure)
            await trial.require_one_of(self.operation.worlds)
            await trial.require_usable()


def join_threads_of(folder: Path) -> None:
    """Wait for the threads that still work for a database in a folder."""
    for thread in threading.enumerate():
        if str(folder) in thread.name:
            thread.join(GRACE)
            assert not thread.is_alive()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("operation", INTERRUPTED, ids=str)
def test_an_interrupted_program_has_stored_what_it_wrote(
    tmp_path: Path, backend: str, operation: Operation, tally: Tally
) -> None:
    program = Program(tmp_path, operation)

    for n in range(1, MOST_POINTS):
        anyio.run(program.begin, backend=backend)
        try:
            was_struck = anyio.run(program.main, n, backend=backend)
        except KeyboardInterrupt:
            was_struck = True
        join_threads_of(tmp_path)
        assert not descriptors(tmp_path)
        anyio.run(program.check, backend=backend)
        if not was_struck:
            break

    tally("cancellation points", n - 1)
    assert n > 5


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_process_that_is_interrupted_ends_at_once_and_has_stored_what_was_handed_over(
    tmp_path: Path, backend: str
) -> None:
    database = tmp_path / "sessions.db"

    process = subprocess.run(
        [sys.executable, PROGRAM, backend, str(database)],
        env=environment(PYTHONDEVMODE="1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=GRACE,
    )

    assert process.returncode == -signal.SIGINT
    assert process.stderr.rstrip().endswith("KeyboardInterrupt")
    assert "ignored" not in process.stderr
    assert "Warning" not in process.stderr
    stored = anyio.run(contents, database, process.stdout.strip())
    assert stored == {"acknowledged": True, "handed over": True}


async def contents(database: Path, id: str) -> dict[str, Any]:
    async with SessionManager(f"sqlite:///{database}") as sessions, sessions.open(id) as one:
        return one.all()
