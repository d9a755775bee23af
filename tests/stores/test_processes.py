"""Several processes in one place: nobody undoes what another wrote, and all may come first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import anyio
import pytest

from minisession.stores import open_store
from tests.scratch import scratch_folder

from .kit import born, items

PROCESSES = 4
TASKS = 5
STEPS = 10

# Waits until all processes are there, and then does its work as fast as it can.
PREAMBLE = f"""
import sys, anyio
from dataclasses import replace
from minisession.abc import Committed, Expect
from minisession.errors import Conflict
from minisession.stores import open_store
from tests.stores.kit import NOW, birth, born, commit, items, write

url, me, backend = sys.argv[1:]
store = open_store(url)
print("ready", flush=True)
sys.stdin.readline()

async def main():
    async with store, anyio.create_task_group() as group:
        for task in range({TASKS}):
            group.start_soon(work, f"{{me}}-{{task}}")

"""
INCREMENT = f"""
async def increment():
    outcome = None
    current = (await items(store)).get("n")
    while not isinstance(outcome, Committed):
        change = write(items={{"n": b"%d" % (int(current or 0) + 1)}})
        outcome = await commit(store, replace(change, expect=Expect("n", current)))
        assert isinstance(outcome, Committed | Conflict), outcome
        if isinstance(outcome, Conflict):
            current = outcome.current

async def work(name):
    for _ in range({STEPS}):
        await increment()

anyio.run(main, backend=backend)
"""
DIFFERENT_KEYS = f"""
async def work(name):
    for step in range({STEPS}):
        assert await commit(store, write(items={{f"{{name}} {{step}}": b"v"}})) == Committed(0)

anyio.run(main, backend=backend)
"""
COME_FIRST = """
async def work(name):
    await born(store, name, k=b"v")
    assert await items(store, name) == {"k": b"v"}

anyio.run(main, backend=backend)
"""


def run_together(script: str, url: str, backend: str) -> None:
    """Run a script in several processes that begin at the same moment."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + script, url, str(number), backend],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    errors = [process.communicate(timeout=60)[1] for process in processes]

    assert errors == [""] * PROCESSES


@pytest.fixture(
    params=[("sqlite:///{}/sessions.db", "asyncio"), ("file://{}/sessions", "trio")],
    ids=["sqlite-asyncio", "files-trio"],
)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A store and a backend; tests/histories tries the other pairs, in four processes too."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def anyio_backend(case: tuple[str, str]) -> str:
    return case[1]


@pytest.fixture
def url(case: tuple[str, str]) -> Iterator[str]:
    with scratch_folder() as folder:
        yield case[0].format(folder)


@pytest.mark.anyio
async def test_increments_of_four_processes_all_count(url: str, anyio_backend: str) -> None:
    async with open_store(url) as store:
        await born(store, n=b"0")

        await anyio.to_thread.run_sync(run_together, INCREMENT, url, anyio_backend)

        assert await items(store) == {"n": b"%d" % (PROCESSES * TASKS * STEPS)}


@pytest.mark.anyio
async def test_writers_of_different_keys_in_four_processes_all_stay(
    url: str, anyio_backend: str
) -> None:
    async with open_store(url) as store:
        await born(store)

        await anyio.to_thread.run_sync(run_together, DIFFERENT_KEYS, url, anyio_backend)

        assert len(await items(store) or {}) == PROCESSES * TASKS * STEPS


@pytest.mark.anyio
async def test_four_processes_may_all_be_the_first(url: str, anyio_backend: str) -> None:
    await anyio.to_thread.run_sync(run_together, COME_FIRST, url, anyio_backend)

    async with open_store(url) as store:
        assert len(await store.scan(0.0)) == PROCESSES * TASKS
