"""The SQLite store as its users meet it: opening, closing, files, batches, lost waits."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from minisession.abc import Committed, Create, Gone, Rotation, Write
from minisession.errors import ConfigError, StoreError, StoreUnavailable
from minisession.stores import open_store
from minisession.stores._sqlite import connect
from minisession.stores.sqlite import SQLiteStore

from .kit import END, LIMIT, NOW, birth, born, commit, items, run_script, until, write

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def locked(path: Path) -> sqlite3.Connection:
    """A connection of somebody else that holds the lock of the writer until it is closed."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection


# Opening and closing


async def test_constructing_does_no_io(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "nowhere" / "sessions.db")

    assert files(tmp_path) == set()
    assert repr(store) == f"<SQLiteStore {tmp_path}/nowhere/sessions.db>"


async def test_entering_makes_the_file_and_leaving_empties_the_log(path: Path) -> None:
    async with SQLiteStore(path) as store:
        assert "sessions.db" in files(path.parent)
        await born(store)

    assert files(path.parent) == {"sessions.db"}


async def test_a_url_names_it(path: Path) -> None:
    assert repr(open_store(f"sqlite:///{path}")) == f"<SQLiteStore {path}>"


async def test_a_relative_path_is_meant_from_where_the_store_was_constructed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore("sessions.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    async with store:
        await born(store)

    assert (tmp_path / "sessions.db").exists()


@pytest.mark.parametrize("name", ["", ":memory:"])
async def test_a_store_without_a_file_is_refused_with_advice(name: str) -> None:
    with pytest.raises(ConfigError, match="memory://"):
        SQLiteStore(name)


async def test_nobody_else_may_read_the_files_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        async with SQLiteStore(path) as store:
            await born(store)
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)

    assert modes == {f"sessions.db{end}": 0o600 for end in ("", "-wal", "-shm")}


async def test_nor_where_a_link_leads_to_files_that_are_not_there_yet(
    path: Path, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    os.mkdir(shared)
    os.symlink(shared / "real.db", path)

    async with SQLiteStore(path) as store:
        await born(store)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in os.scandir(shared)}

    assert modes == {f"real.db{end}": 0o600 for end in ("", "-wal", "-shm")}


async def test_leaving_is_not_stopped_by_a_cancellation(path: Path) -> None:
    with anyio.CancelScope() as scope:
        async with SQLiteStore(path) as store:
            await born(store)
            scope.cancel()

    assert files(path.parent) == {"sessions.db"}


async def test_a_store_that_nobody_has_any_more_stores_what_was_handed_over(path: Path) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await SQLiteStore(path).commit([birth(k=b"v")], NOW)

    async with SQLiteStore(path) as store:
        assert await items(store) == {"k": b"v"}


# Batches


async def test_a_change_that_no_database_could_store_does_not_disturb_its_neighbours(
    path: Path,
) -> None:
    unencodable = "\ud800"
    async with SQLiteStore(path) as store:
        await born(store)
        changes = [write(items={f"k{number}": b"v"}) for number in range(9)]
        changes.insert(4, write(items={unencodable: b"v"}))

        outcomes = await store.commit(changes, NOW)

        assert isinstance(outcomes.pop(4), StoreError)
        assert outcomes == [Committed(0)] * 9
        assert await items(store) == {f"k{number}": b"v" for number in range(9)}


async def test_what_cannot_be_stored_is_refused_without_showing_it(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await born(store)

        outcome = await commit(store, write(items={"secret \ud800": b"v"}))

    assert isinstance(outcome, StoreError)
    assert str(outcome) == "session h: this change cannot be stored (UnicodeEncodeError)"


async def test_a_batch_larger_than_a_transaction_may_be_is_stored_whole(path: Path) -> None:
    async with SQLiteStore(path) as store:
        outcomes = await store.commit([birth(f"h{number}") for number in range(1500)], NOW)

        assert outcomes == [Committed(0)] * 1500
        assert len(await store.scan(NOW, limit=2000)) == 1500


async def test_a_key_written_again_and_again_does_not_use_up_the_limit(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await born(store)
        change = Write("h", 0, END, 100, {"k": b"x" * 60})

        assert {await commit(store, change) for _ in range(10)} == {Committed(0)}


# Waiting and not waiting


async def test_commits_wait_for_another_writer_and_loads_do_not(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await born(store, k=b"old")
        other = locked(path)

        async with anyio.create_task_group() as group:
            group.start_soon(commit, store, write(items={"k": b"new"}))
            await anyio.wait_all_tasks_blocked()
            assert await items(store) == {"k": b"old"}
            other.close()

        assert await items(store) == {"k": b"new"}


async def test_what_the_writer_has_not_taken_can_be_withdrawn(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await born(store)
        taken, queued, twice = (write(items={key: b"v"}) for key in ("taken", "queued", "twice"))
        outcomes: dict[str, list[object]] = {}

        async def wait(name: str, *changes: Write) -> None:
            outcomes[name] = list(await store.commit(changes, NOW))

        other = locked(path)
        async with anyio.create_task_group() as group:
            group.start_soon(wait, "taken", taken)
            await anyio.wait_all_tasks_blocked()
            await until(lambda: not store._database.writer._queued)
            group.start_soon(wait, "queued", queued)
            group.start_soon(wait, "twice", twice, twice)
            await until(lambda: len(store._database.writer._queued) == 3)

            withdrawn = [store.withdraw(change) for change in (taken, queued, queued, twice)]
            other.close()

        assert withdrawn == [False, True, False, False]
        assert outcomes["taken"] == [Committed(0)]
        assert [type(outcome) for outcome in outcomes["queued"]] == [StoreUnavailable]
        assert outcomes["twice"] == [Committed(0), Committed(0)]
        assert await items(store) == {"taken": b"v", "twice": b"v"}


async def test_a_cancelled_wait_stores_its_change_and_takes_nobody_elses(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await born(store)
        outcomes: list[object] = []

        async def patient(key: str) -> None:
            outcomes.append(await commit(store, write(items={key: b"v"})))

        async def impatient(key: str, scope: anyio.CancelScope) -> None:
            with scope:
                await commit(store, write(items={key: b"v"}))
                outcomes.append("not cancelled")

        other = locked(path)
        scopes = [anyio.CancelScope() for _ in range(5)]
        async with anyio.create_task_group() as group:
            for number, scope in enumerate(scopes):
                group.start_soon(patient, f"patient {number}")
                group.start_soon(impatient, f"impatient {number}", scope)
            await anyio.wait_all_tasks_blocked()
            for scope in scopes:
                scope.cancel()
            await anyio.wait_all_tasks_blocked()
            other.close()
        await commit(store, write(items={}))

        kinds = ("patient", "impatient")
        assert outcomes == [Committed(0)] * 5
        assert await items(store) == {f"{kind} {n}": b"v" for kind in kinds for n in range(5)}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncios_own_cancellation_loses_no_change_either(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await born(store)
        other = locked(path)
        tasks = [
            asyncio.ensure_future(commit(store, write(items={f"k{number}": b"v"})))
            for number in range(6)
        ]
        await anyio.wait_all_tasks_blocked()

        for task in tasks[::2]:
            task.cancel()
        other.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await commit(store, write(items={}))

        assert [isinstance(result, asyncio.CancelledError) for result in results] == [
            True,
            False,
        ] * 3
        assert set(await items(store) or {}) == {f"k{number}" for number in range(6)}


async def test_it_can_be_loaded_from_any_thread_while_others_write(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await born(store, n=b"0")
        seen: list[object] = []

        def look() -> None:
            for _ in range(200):
                record = store.load_nowait("h", NOW)
                seen.append(record and set(record.items))

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(anyio.to_thread.run_sync, look)
            for number in range(100):
                await commit(store, write(items={"n": b"%d" % number}))

        assert seen == [{"n"}] * 600


@pytest.mark.parametrize(("first", "second"), [("asyncio", "trio"), ("trio", "asyncio")])
def test_one_store_serves_one_loop_after_the_other(path: Path, first: str, second: str) -> None:
    store = SQLiteStore(path)

    anyio.run(born, store, backend=first)
    loaded = anyio.run(items, store, backend=second)
    outcome = anyio.run(commit, store, write(), backend=second)

    assert (loaded, outcome) == ({}, Committed(0))
    anyio.run(store.__aexit__, None, None, None)


def test_a_loop_that_ends_before_the_answer_loses_nothing(path: Path) -> None:
    store = SQLiteStore(path)

    async def leave() -> None:
        other = locked(path)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await commit(store, birth(k=b"v"))
        leave_locked.append(other)

    leave_locked: list[sqlite3.Connection] = []
    anyio.run(store.__aenter__)
    anyio.run(leave)
    leave_locked[0].close()
    anyio.run(store.__aexit__, None, None, None)

    assert anyio.run(items, SQLiteStore(path)) == {"k": b"v"}


# The interpreter's end, and forks


def test_what_was_handed_over_is_stored_when_the_interpreter_exits(path: Path) -> None:
    script = """
        import sys, anyio
        from minisession.stores.sqlite import SQLiteStore
        from tests.stores.kit import NOW, birth
        store = SQLiteStore(sys.argv[1])

        async def main():
            with anyio.CancelScope() as scope:
                scope.cancel()
                await store.commit([birth(f"h{n}", k=b"v") for n in range(1000)], NOW)

        anyio.run(main)
    """

    run_script(script, path)

    assert files(path.parent) == {"sessions.db"}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM session").fetchone() == (1000,)


FORK = """
    import os, sys, warnings, anyio
    from minisession.errors import StoreUnavailable
    from minisession.stores.sqlite import SQLiteStore
    from tests.stores.kit import NOW, birth, born, items
    store = SQLiteStore(sys.argv[1])
    if sys.argv[2] == "True":
        anyio.run(born, store, "parent")

    warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: it is the point
    child = os.fork()
    if child == 0:
        try:
            anyio.run(born, store, "child")
            print("stored")
        except StoreUnavailable as error:
            print("refused" if "Open the store after the fork" in str(error) else error)
        sys.exit()  # with everything that an interpreter does when it exits
    os.waitpid(child, 0)
    anyio.run(born, store, "after")
    print([anyio.run(items, store, handle) for handle in ("parent", "child", "after")])
"""


@pytest.mark.parametrize(
    ("opened", "printed"),
    [
        (True, "refused\n[{}, None, {}]"),
        (False, "stored\n[None, {}, {}]"),
    ],
)
def test_a_forked_child_never_uses_what_its_parent_opened(
    path: Path, opened: bool, printed: str
) -> None:
    assert run_script(FORK, path, str(opened)) == printed


# The file


async def test_the_log_stays_bounded_under_constant_load(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minisession.stores._sqlite.checkpoints.INTERVAL", 0.02)
    monkeypatch.setattr("minisession.stores._sqlite.checkpoints.WAL_LIMIT", 50)
    log = path.with_name("sessions.db-wal")
    sizes: list[int] = []
    async with SQLiteStore(path) as store:
        await store.commit([birth(f"h{number}") for number in range(20)], NOW)
        for number in range(600):
            changes = [write(f"h{n}", {"k": b"%d" % number * 300}) for n in range(20)]
            assert await store.commit(changes, NOW) == [Committed(0)] * 20
            sizes.append(log.stat().st_size)

    written = 600 * 10 * 4096  # bytes, at the least
    assert max(sizes) < written / 4
    assert sizes[-1] < written / 4


async def test_a_reader_that_stays_does_not_stop_the_writer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minisession.stores._sqlite.checkpoints.INTERVAL", 0.01)
    monkeypatch.setattr("minisession.stores._sqlite.checkpoints.WAL_LIMIT", 10)
    async with SQLiteStore(path) as store:
        await born(store)
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM session").fetchall()
            for number in range(20):
                assert await commit(store, write(items={"k": b"%d" % number})) == Committed(0)

        assert await items(store) == {"k": b"19"}


async def test_purging_removes_the_tombstones_that_nobody_needs_any_more(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await born(store, k=b"v")
        rotation = Rotation(bytes(32), NOW + 30)
        await commit(store, Write("h", 0, END, LIMIT, {"k": None}, rotation=rotation))

        with closing(sqlite3.connect(path)) as connection:
            count = "SELECT count(*) FROM item"
            before = connection.execute(count).fetchone()
            await store.purge(NOW, 100)
            within = connection.execute(count).fetchone()
            await store.purge(NOW + 30, 100)
            after = connection.execute(count).fetchone()

    assert (before, within, after) == ((1,), (1,), (0,))


@pytest.mark.parametrize(
    ("size", "steps"), [(10, [5, 0]), (400_000, [3, 2, 0]), (1_040_000, [1, 1, 1, 1, 1, 0])]
)
async def test_a_purge_of_large_sessions_takes_fewer_of_them(
    path: Path, size: int, steps: list[int]
) -> None:
    async with SQLiteStore(path) as store:
        await store.commit([birth(f"h{n}", k=bytes(size)) for n in range(5)], NOW)

        assert [await store.purge(END, 200) for _ in steps] == steps


async def test_purging_leaves_no_items_behind(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await store.commit([birth(f"h{n}", k=b"v") for n in range(10)], NOW)

        assert [await store.purge(END, 6), await store.purge(END, 6)] == [6, 4]

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM item").fetchone() == (0,)


async def test_secrets_are_stored_as_the_hashes_they_came_as(path: Path) -> None:
    async with SQLiteStore(path) as store:
        change = Create("h", b"\1" * 32, {}, NOW, END, END, LIMIT)
        await commit(store, change)
        assert await commit(store, change) == Gone()

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT secret FROM session").fetchall() == [(b"\1" * 32,)]


async def test_threads_that_come_first_make_one_database(tmp_path: Path) -> None:
    rounds = 25  # in which a check that is not of one moment sees a half-made database, on 3.11

    for number in range(rounds):
        path = tmp_path / f"sessions {number}.db"
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(anyio.to_thread.run_sync, open_and_close, str(path))

        async with SQLiteStore(path) as store:
            await born(store)


def open_and_close(path: str) -> None:
    connect.connect(path).close()
