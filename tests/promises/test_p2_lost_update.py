"""P2: writers of different keys of one session never undo each other, in one process or in many.

Of writers of one key the later commit wins; n concurrent increments through `session.update` add
n; a reader overwrites nothing; nobody holds a lock across a request.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from minisession import SessionManager, session
from minisession.abc import Store
from minisession.stores.sqlite import SQLiteStore
from minisession.testing import Schedule, replay
from tests.remote_store import RemoteStore

pytestmark = pytest.mark.anyio

INCREMENTS = 50
PROCESSES = 4


async def begun(sessions: SessionManager, **values: object) -> str:
    async with sessions.open() as one:
        one.update({"begun": True, **values})
        await one.save()
        return str(one.id)


async def stored(sessions: SessionManager, id: str) -> dict[str, object]:
    async with sessions.open(id) as one:
        return one.all()


async def test_fifty_concurrent_increments_add_fifty(store: Store) -> None:
    async with SessionManager(store) as sessions:
        id = await begun(sessions)

        async def increment() -> None:
            async with sessions.open(id):
                await session.update("n", lambda n: n + 1, default=0)

        async with anyio.create_task_group() as tasks:
            for _ in range(INCREMENTS):
                tasks.start_soon(increment)

        assert (await stored(sessions, id))["n"] == INCREMENTS


async def test_fifty_increments_within_one_request_add_fifty(store: Store) -> None:
    async with SessionManager(store) as sessions:
        async with sessions.open() as one, anyio.create_task_group() as tasks:

            async def increment() -> None:
                await session.update("n", lambda n: n + 1, default=0)

            for _ in range(INCREMENTS):
                tasks.start_soon(increment)

        async with sessions.open_handle(await only_handle(store)) as one:
            assert one["n"] == INCREMENTS


async def only_handle(store: Store) -> str:
    [summary] = await store.scan(0.0)
    return summary.handle


INCREMENTING = """
import anyio, sys
from minisession import SessionManager, session

async def main(backend, path, id):
    async with SessionManager(f"sqlite:///{path}") as sessions:
        async def increment():
            async with sessions.open(id):
                await session.update("n", lambda n: n + 1, default=0)

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(increment)

anyio.run(main, *sys.argv[1:], backend=sys.argv[1])
"""


@pytest.mark.slow
async def test_fifty_increments_in_each_of_four_processes_add_two_hundred(
    database: Path, anyio_backend: str
) -> None:
    async with SessionManager(SQLiteStore(database)) as sessions:
        id = await begun(sessions)

        command = [sys.executable, "-c", INCREMENTING, anyio_backend, str(database), id]
        async with anyio.create_task_group() as tasks:
            for _ in range(PROCESSES):
                tasks.start_soon(_run, command)

        assert (await stored(sessions, id))["n"] == PROCESSES * 50


async def _run(command: list[str]) -> None:
    result = await anyio.run_process(command, check=False, stderr=subprocess.PIPE)
    assert result.returncode == 0, result.stderr.decode()


async def test_writers_of_different_keys_never_undo_each_other(store: Store) -> None:
    async with SessionManager(store) as sessions:
        id = await begun(sessions)
        everybody_is_in = anyio.Event()
        waiting = 0

        async def write(n: int) -> None:
            nonlocal waiting
            async with sessions.open(id) as one:
                assert one["begun"]
                waiting += 1
                if waiting == INCREMENTS:
                    everybody_is_in.set()
                await everybody_is_in.wait()
                one[f"key {n}"] = n

        async with anyio.create_task_group() as tasks:
            for n in range(INCREMENTS):
                tasks.start_soon(write, n)

        expected = {f"key {n}": n for n in range(INCREMENTS)}
        assert await stored(sessions, id) == {"begun": True, **expected}


async def test_a_deleted_key_stays_deleted_beside_a_writer(store: Store) -> None:
    async with SessionManager(store) as sessions:
        id = await begun(sessions, coupon="X", cart=[])
        async with sessions.open(id) as slow, sessions.open(id) as fast:
            assert slow["coupon"] == "X"
            del fast["coupon"]
            await fast.save()
            slow["cart"].append("tea")

        assert await stored(sessions, id) == {"begun": True, "cart": ["tea"]}


async def test_of_two_writers_of_one_key_the_later_commit_wins(store: Store) -> None:
    async with SessionManager(store) as sessions:
        id = await begun(sessions)
        async with sessions.open(id) as one, sessions.open(id) as two:
            one["n"], two["n"] = 1, 2
            await two.save()
            await one.save()
            two["other"] = True

        assert (await stored(sessions, id))["n"] in (1, 2)
        async with sessions.open(id) as one, sessions.open(id) as two:
            one["n"] = 3
            await one.save()
            two["n"] = 4
            await two.save()
        assert (await stored(sessions, id))["n"] == 4


async def test_a_reader_overwrites_nothing(store: Store) -> None:
    async with SessionManager(store) as sessions:
        id = await begun(sessions, cart=["tea"], n=1)
        async with sessions.open(id) as reader:
            assert reader["cart"] == ["tea"]
            assert reader.all()["n"] == 1
            async with sessions.open(id) as writer:
                writer["cart"] = ["milk"]
                del writer["n"]

        assert await stored(sessions, id) == {"begun": True, "cart": ["milk"]}


async def test_nobody_waits_for_another_request_of_the_same_session(store: Store) -> None:
    async with SessionManager(store) as sessions:
        id = await begun(sessions)
        async with sessions.open(id) as slow:
            slow["slow"] = 1
            await slow.update("n", lambda n: n + 1, default=0)
            with anyio.fail_after(10):
                async with sessions.open(id) as fast:
                    fast["fast"] = 1
                    await fast.update("n", lambda n: n + 1, default=0)

        assert await stored(sessions, id) == {"begun": True, "slow": 1, "fast": 1, "n": 2}


async def test_an_increment_survives_a_regenerate_beside_it(store: Store) -> None:
    async with SessionManager(store) as sessions:
        id = await begun(sessions, n=0)
        async with sessions.open(id) as slow:
            assert slow["n"] == 0
            async with sessions.open(id) as login:
                login.regenerate()
                login["user"] = "Ada"
                await login.save()
                new = str(login.id)
            await slow.update("n", lambda n: n + 1)

        assert await stored(sessions, new) == {"begun": True, "n": 1, "user": "Ada"}


# --- schedules -----------------------------------------------------------------------------------

KEYS = "ab"
operations = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(KEYS)),
    st.tuples(st.just("count"), st.sampled_from("nm")),
    st.just(("pause", "")),
    st.just(("save", "")),
)
programs = st.lists(st.lists(operations, min_size=1, max_size=4), min_size=2, max_size=4)
Program = list[tuple[str, str]]


async def written_together(requests: list[Program]) -> None:
    """Run requests of one session at once; what is stored must be what they did."""
    async with SessionManager(RemoteStore()) as sessions:
        id = await begun(sessions)

        async def request(number: int, program: Program) -> None:
            async with sessions.open(id) as one:
                for kind, key in program:
                    if kind == "put":
                        one[f"{key}{number}"] = one.get(f"{key}{number}", 0) + 1
                    elif kind == "count":
                        await one.update(key, lambda n: n + 1, default=0)
                    elif kind == "save":
                        await one.save()
                    await checkpoint()

        async with anyio.create_task_group() as tasks:
            for number, program in enumerate(requests):
                tasks.start_soon(request, number, program)

        expected: dict[str, object] = {"begun": True}
        for number, program in enumerate(requests):
            for kind, key in program:
                name = f"{key}{number}" if kind == "put" else key
                if kind in ("put", "count"):
                    expected[name] = int(str(expected.get(name, 0))) + 1
        assert await stored(sessions, id) == expected


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(requests=programs, seed=st.integers(0))
@settings(max_examples=80, deadline=None)
def test_in_no_schedule_is_an_update_lost(backend: str, requests: list[Program], seed: int) -> None:
    async def program() -> None:
        await written_together(requests)

    replay(program, Schedule.seeded(seed), backend=backend)
