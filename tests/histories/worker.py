"""One of several processes that use one store, and note what they see.

    python -m tests.histories.worker FOLDER URL NUMBER BACKEND SEED

It says "ready", reads one line for each round, with the ids of that round's sessions, and says
"done" at its end. Every event goes to FOLDER/NUMBER.log at once, with the clock that all processes
of the machine share, so that it is there when the process is killed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from random import Random

import anyio
import anyio.to_thread

from minisession import SessionManager
from minisession._ids import split_id

from .clients import Place, any_client
from .log import Event

VISITS = 1_000_000
"""Numbers of visits that belong to one process."""


def noting(file: int, session: int) -> Callable[[Event], None]:
    """Return what writes each event of a session to a file."""

    def note(event: Event) -> None:
        os.write(file, json.dumps([session, *event]).encode() + b"\n")

    return note


async def play(folder: Path, url: str, number: int, seed: int) -> None:
    """Take part in every round."""
    random = Random(seed)
    visits = count(number * VISITS).__next__
    file = os.open(folder / f"{number}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    async with SessionManager(url) as sessions:
        print("ready", flush=True)
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            async with anyio.create_task_group() as tasks:
                for session, id in json.loads(line):
                    parts = split_id(id)
                    assert parts is not None
                    note = noting(file, session)
                    place = Place([sessions], parts[0], [id], time.monotonic, note, visits)
                    clients = [any_client(random, 1) for _ in range(random.randint(0, 2))]
                    tasks.start_soon(place.run, clients)
            print("done", flush=True)


if __name__ == "__main__":
    where, store, own_number, backend, own_seed = sys.argv[1:]
    anyio.run(play, Path(where), store, int(own_number), int(own_seed), backend=backend)
