"""Four processes on one store, and some are killed: one order still explains what all saw."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from random import Random
from typing import IO, Self

import anyio
import pytest

from minisession import SessionManager
from minisession._ids import split_id
from tests.command import ROOT, environment
from tests.effort import SOAK, Tally, effort

from .checker import Operation, judge
from .clients import Place, label_of
from .log import Event, history
from .model import Stored
from .runs import BEGUN, begun
from .worker import VISITS

PROCESSES = 4
SQLITE, FILES = "sqlite:///{}/sessions.db", "file://{}/sessions"
EVERY = [
    (store, backend, kills)
    for store in (SQLITE, FILES)
    for backend in ("asyncio", "trio")
    for kills in (0, 2)
]
SOME = [(SQLITE, "asyncio", 0), (SQLITE, "trio", 2), (FILES, "asyncio", 2)]
ROUNDS = {SQLITE: effort(8, soak=12), FILES: effort(3, soak=12)}
SEED = 3
SESSIONS = 25  # at the same time, for one round

Ids = list[tuple[int, str]]
Deaths = dict[int, float]


class Worker:
    """A process that takes part."""

    def __init__(self, folder: Path, url: str, number: int, backend: str, seed: int) -> None:
        arguments = [str(folder), url, str(number), backend, str(seed)]
        self.errors = folder / f"{number}.errors"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.histories.worker", *arguments],
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def hears(self, line: str) -> None:
        stdin = _open(self.process.stdin)
        stdin.write(line + "\n")
        stdin.flush()

    def says(self, line: str) -> None:
        """Wait until it says that."""
        said = _open(self.process.stdout).readline()
        assert said == line + "\n", self.errors.read_text()

    def killed(self) -> float:
        """Kill it with signal 9; return a time at which it was certainly dead."""
        self.process.kill()
        self.process.wait()
        return time.monotonic()

    def end(self) -> None:
        """Let it end in good order, unless it was killed."""
        self.process.communicate(timeout=60)
        assert self.process.returncode in (0, -signal.SIGKILL), self.errors.read_text()


def _open(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def play_rounds(
    workers: Sequence[Worker], rounds: Sequence[Ids], victims: Sequence[int], random: Random
) -> Deaths:
    """Let all workers use the sessions of each round; kill the victims in the last one."""
    alive = list(workers)
    for worker in alive:
        worker.says("ready")
    for ids in rounds[:-1]:
        for worker in alive:
            worker.hears(json.dumps(ids))
        for worker in alive:
            worker.says("done")
    for worker in alive:
        worker.hears(json.dumps(rounds[-1]))
    deaths: Deaths = {}
    for victim in victims:
        time.sleep(random.uniform(0, 0.05))  # kills keep to no schedule: none may lose anything
        deaths[victim] = workers[victim].killed()
    for number, worker in enumerate(workers):
        if number not in deaths:
            worker.says("done")
    for worker in workers:
        worker.end()
    return deaths


def logs(folder: Path) -> dict[int, dict[int, list[Event]]]:
    """Return the events by session and process. The last line of the killed may be cut."""
    events: dict[int, dict[int, list[Event]]] = defaultdict(lambda: defaultdict(list))
    for number in range(PROCESSES):
        for line in (folder / f"{number}.log").read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                session, at, visit, name, arguments = json.loads(line)
                events[session][number].append((at, visit, name, tuple(arguments)))
    return events


def operations(logged: dict[int, list[Event]], deaths: Deaths) -> list[list[Operation[Stored]]]:
    """Return the operations of all processes on one session."""
    lanes = []
    for number, events in logged.items():
        lanes += history(events, died=deaths.get(number, time.monotonic()))
    return lanes


@pytest.mark.slow
@pytest.mark.parametrize(("store", "backend", "kills"), EVERY if SOAK else SOME)
def test_every_history_of_four_processes_is_linearizable(
    store: str, backend: str, kills: int, tmp_path: Path, tally: Tally
) -> None:
    random = Random(SEED)
    for repetition in range(effort(1, soak=10)):
        folder = tmp_path / str(repetition)
        folder.mkdir()
        url = store.format(folder)
        sessions: Ids = []
        rounds = [SESSIONS] * ROUNDS[store]
        anyio.run(_begin, url, sum(rounds), sessions)
        victims = random.sample(range(PROCESSES), kills)
        parts = [sessions[first : first + SESSIONS] for first in range(0, len(sessions), SESSIONS)]

        with ExitStack() as stack:
            seeds = [random.getrandbits(32) for _ in range(PROCESSES)]
            workers = [Worker(folder, url, n, backend, seed) for n, seed in enumerate(seeds)]
            for worker in workers:
                stack.enter_context(worker)
            deaths = play_rounds(workers, parts, victims, random)

        logged = logs(folder)
        last: dict[int, list[Event]] = anyio.run(_read_everything, url, sessions)
        for session, id in sessions:
            logged[session][PROCESSES] = last[session]
            verdict = judge(operations(logged[session], deaths), Stored.begun(label_of(id), BEGUN))
            assert verdict, str(verdict)
        assert len(deaths) == kills
        tally("histories", len(sessions))
        if kills:
            tally("kills", kills)


async def _begin(url: str, how_many: int, sessions: Ids) -> None:
    async with SessionManager(url) as manager:
        for number in range(how_many):
            sessions.append((number, await begun(manager)))


async def _read_everything(url: str, sessions: Ids) -> dict[int, list[Event]]:
    """Look at what is stored in the end, or a lost update would go unnoticed."""
    visits = count(PROCESSES * VISITS).__next__
    events: dict[int, list[Event]] = {}
    async with SessionManager(url) as manager:
        for session, id in sessions:
            parts = split_id(id)
            assert parts is not None
            note = events.setdefault(session, []).append
            await Place([manager], parts[0], [id], time.monotonic, note, visits).read(1)
    return events
