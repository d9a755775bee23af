"""The store in files as its users meet it: opening, closing, files, batches, lost waits."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from minisession.abc import Committed, Create, Destroy, Expect, Gone, Outcome, Touch, Write
from minisession.errors import (
    ConfigError,
    Conflict,
    SessionTooLarge,
    StoreError,
    StoreUnavailable,
)
from minisession.stores import _opened
from minisession.stores._files.names import SHARDS, name_of, shard_of
from minisession.stores._files.shard import Shard
from minisession.stores.files import FilesStore
from tests.machine import open_files

from .kit import END, NOW, birth, born, commit, items, run_script, until, write

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


def file_of(path: Path, handle: str = "h") -> Path:
    return path / shard_of(handle) / name_of(handle)


def everything(path: Path) -> set[str]:
    return {str(one.relative_to(path)) for one in path.rglob("*")}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def is_there(path: Path) -> bool:
    return path.exists()


@contextmanager
def locked(path: Path, handle: str = "h") -> Iterator[None]:
    """Hold the lock of a session's folder, as another process does."""
    descriptor = os.open(file_of(path, handle).parent, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


# Opening and closing


async def test_constructing_does_no_io(path: Path) -> None:
    store = FilesStore(path)

    assert not is_there(path)
    assert repr(store) == f"<FilesStore {path}>"


async def test_entering_makes_the_folder_and_a_session_is_one_file_in_it(path: Path) -> None:
    async with FilesStore(path) as store:
        assert everything(path) == set()
        await born(store)

    assert everything(path) == {shard_of("h"), f"{shard_of('h')}/{name_of('h')}"}


async def test_a_relative_path_is_meant_from_where_the_store_was_constructed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = FilesStore("sessions")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    async with store:
        await born(store)

    assert file_of(tmp_path / "sessions").exists()


async def test_a_store_without_a_folder_is_refused_with_advice() -> None:
    with pytest.raises(ConfigError, match="FilesStore\\('/var/lib/app/sessions'\\)"):
        FilesStore("")


async def test_a_system_without_locks_is_told_to_use_sqlite() -> None:
    script = """
        import sys
        sys.modules["fcntl"] = None
        from minisession.errors import ConfigError
        from minisession.stores import open_store
        try:
            open_store("file:///var/lib/app/sessions")
        except ConfigError as error:
            print(error)
    """

    assert "Use store='sqlite:///sessions.db'" in run_script(script)


@pytest.mark.parametrize("umask", [0o000, 0o777])
async def test_nobody_else_may_read_anything_whatever_the_umask(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        async with FilesStore(path) as store:
            await born(store)
    finally:
        os.umask(before)

    modes = {one: mode_of(path / one) for one in [".", *everything(path)]}
    assert modes == {".": 0o700, shard_of("h"): 0o700, f"{shard_of('h')}/{name_of('h')}": 0o600}


async def test_a_folder_that_is_there_keeps_its_mode(path: Path) -> None:
    os.mkdir(path, 0o750)

    async with FilesStore(path) as store:
        await born(store)

    assert mode_of(path) == 0o750


@pytest.mark.needs("Linux")
async def test_nothing_is_open_between_batches(path: Path) -> None:
    async with FilesStore(path) as store:
        await born(store)
        opened = open_files()

    assert not [name for name in opened if name.startswith(str(path))]


async def test_leaving_is_not_stopped_by_a_cancellation(path: Path) -> None:
    with anyio.CancelScope() as scope:
        async with FilesStore(path) as store:
            await born(store)
            scope.cancel()

    assert store._place.writer._worker is None
    assert file_of(path).exists()


async def test_a_store_that_nobody_has_any_more_stores_what_was_handed_over(path: Path) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await FilesStore(path).commit([birth(k=b"v")], NOW)

    async with FilesStore(path) as store:
        assert await items(store) == {"k": b"v"}


async def test_what_was_handed_over_is_stored_when_the_interpreter_exits(path: Path) -> None:
    script = """
        import sys, anyio
        from minisession.stores.files import FilesStore
        from tests.stores.kit import NOW, birth

        store = FilesStore(sys.argv[1])

        async def main():
            with anyio.CancelScope() as scope:
                scope.cancel()
                await store.commit([birth(f"h{n}", k=b"v") for n in range(300)], NOW)

        anyio.run(main)
    """

    await anyio.to_thread.run_sync(run_script, script, path)

    assert len(await FilesStore(path).scan(NOW)) == 300


async def test_a_forked_child_never_uses_what_its_parent_opened(path: Path) -> None:
    script = """
        import os, sys, anyio
        from minisession.errors import StoreUnavailable
        from minisession.stores.files import FilesStore
        from tests.stores.kit import NOW, born, items

        store = FilesStore(sys.argv[1])

        async def main():
            await born(store, k=b"v")
            if os.fork() == 0:
                try:
                    store.load_nowait("h", NOW)
                except StoreUnavailable as error:
                    print("was opened by process" in str(error), flush=True)
                os._exit(0)
            os.wait()
            print(await items(store) == {"k": b"v"})

        anyio.run(main)
    """

    assert await anyio.to_thread.run_sync(run_script, script, path) == "True\nTrue"


async def test_a_close_that_takes_too_long_says_what_still_waits(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_opened, "CLOSE_TIMEOUT", 0.01)
    store = FilesStore(path)
    await born(store)
    with locked(path):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await store.commit([write()], NOW)
        await store.__aexit__(None, None, None)

    assert "changes still wait for the disk" in caplog.text
    monkeypatch.undo()
    await store.__aexit__(None, None, None)
    assert await items(store) == {"k": b"v"}


# Batches


async def test_all_changes_of_a_session_in_a_batch_are_one_write_with_an_answer_each(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    put_in_place = Shard.put_in_place

    def noting(shard: Shard, name: str) -> None:
        written.append(name)
        put_in_place(shard, name)

    monkeypatch.setattr(Shard, "put_in_place", noting)
    other = "z" * 22
    async with FilesStore(path) as store:
        await store.commit([birth(), birth(other)], NOW)
        written.clear()

        outcomes = await store.commit(
            [
                write(items={"n": b"1"}),
                write(other, {"n": b"1"}),
                replace(write(items={"n": b"3"}), expect=Expect("n", b"2")),
                replace(write(items={"n": b"2"}), expect=Expect("n", b"1")),
                replace(write(items={"x": b"x" * 100}), max_size=50),
                Touch("h", 0, END + 60),
                Write("h", 7, END, 100),
            ],
            NOW,
        )

        assert [type(outcome) for outcome in outcomes] == [
            *[Committed, Committed, Conflict, Committed, SessionTooLarge, Committed, Gone]
        ]
        assert sorted(written) == sorted([name_of("h"), name_of(other)])
        assert await items(store) == {"n": b"2"}
        [summary] = await store.scan(NOW, limit=1)
        assert summary.expires == END + 60


async def test_what_begins_and_ends_in_one_batch_never_touches_the_disk(path: Path) -> None:
    async with FilesStore(path) as store:
        outcomes = await store.commit([birth(), Destroy("h", 0), write()], NOW)

        assert outcomes == [Committed(0), Committed(0), Gone()]
        assert await items(store) is None
        assert everything(path) == {shard_of("h")}


async def test_what_ends_and_begins_in_one_batch_is_the_new_one(path: Path) -> None:
    async with FilesStore(path) as store:
        await born(store, old=b"1")

        outcomes = await store.commit([Destroy("h", None), birth(new=b"2")], NOW)

        assert outcomes == [Committed(0), Committed(0)]
        assert await items(store) == {"new": b"2"}


async def test_a_change_that_no_file_can_hold_does_not_disturb_its_neighbours(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    no_bytes: Create = replace(birth("no bytes"), items={"k": "text"})  # type: ignore[dict-item]
    changes = [write(items={f"k{number}": b"v"}) for number in range(3)]
    changes.insert(1, write(items={"secret \ud800": b"v"}))
    async with FilesStore(path) as store:
        await born(store)

        outcomes = await store.commit([*changes, no_bytes, birth("\ud800"), birth("x" * 200)], NOW)

        assert [type(outcome) for outcome in outcomes] == [
            *[Committed, StoreError, Committed, Committed],
            *[StoreError] * 3,
        ]
        assert await items(store) == {f"k{number}": b"v" for number in range(3)}
    assert "secret" not in str(outcomes)
    assert "secret" not in caplog.text


async def test_a_session_larger_than_a_file_may_be_is_refused_before_it_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FilesStore(path) as store:
        await born(store, k=b"old")
        monkeypatch.setattr("minisession.stores._files.form.LARGEST", 5_000)

        outcome = await commit(store, write(items={"k": b"x" * 5_000}))

        assert type(outcome) is StoreError
        assert "does not fit into a file; allowed are 5,000" in str(outcome)
        assert await items(store) == {"k": b"old"}


async def test_a_session_of_megabytes_comes_back_as_it_was(path: Path) -> None:
    large = {"a": os.urandom(500_000), "b": os.urandom(300_000)}
    async with FilesStore(path) as store:
        await born(store, "h", **large)

        assert await items(store) == large


async def test_a_store_without_sessions_has_empty_lists(path: Path) -> None:
    store = FilesStore(path)

    assert await store.scan(NOW) == []
    assert await store.of_principal("p", NOW) == []
    assert await store.alive(["h"], NOW) == set()
    assert await store.purge(NOW, 10) == 0


async def test_a_scan_goes_on_behind_what_has_expired(path: Path) -> None:
    expired = [replace(birth(f"a{number}"), expires=NOW + 1) for number in range(5)]
    async with FilesStore(path) as store:
        await store.commit([*expired, birth("ab"), birth("z")], NOW)

        found = await store.scan(NOW + 2, limit=2)

    assert [summary.handle for summary in found] == ["ab", "z"]


async def test_sessions_in_every_folder_are_stored_and_listed(path: Path) -> None:
    handles = sorted({first + second for first in "-0Az_" for second in "0Pgz"})
    async with FilesStore(path) as store:
        outcomes = await store.commit([birth(handle) for handle in handles], NOW)
        found = [summary.handle for summary in await store.scan(NOW)]

    assert outcomes == [Committed(0)] * len(handles)
    assert found == handles
    assert {name for name in everything(path) if "/" not in name} <= set(SHARDS)


# Threads that help to sync


async def test_without_threads_that_help_the_writer_syncs_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = [birth(first + "x" * 21) for first in "0AZaz"]
    async with FilesStore(path) as store:
        await born(store)  # which starts the writer

        def none_left(thread: object) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr("threading.Thread.start", none_left)
        outcomes: list[Outcome] = await store.commit(changes, NOW)
        monkeypatch.undo()

    assert outcomes == [Committed(0)] * 5


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of all that is synced from now on."""
    synced: list[str] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    return synced


@pytest.mark.needs("Linux")
async def test_the_names_of_new_folders_reach_the_disk_and_once_is_enough(
    path: Path, synced: list[str]
) -> None:
    async def folders(handle: str) -> set[str]:
        """Begin a session; return the folders that this synced."""
        synced.clear()
        await born(store, handle)
        return {one for one in synced if not one.endswith(".tmp")}

    shard, above = f"{path}/{shard_of('z1')}", {str(path), str(path.parent)}
    async with FilesStore(path) as store:
        assert await folders("z1") == {shard, *above}
        assert await folders("z2") == {shard}
        run_script("import shutil, sys; shutil.rmtree(sys.argv[1])", path)
        assert await folders("z1") == {shard, *above}
    async with store:
        assert await folders("z3") == {shard, *above}, "who made them may have died before that"


@pytest.mark.needs("Linux")
async def test_what_is_mounted_has_no_name_to_sync_in_the_folder_above(
    path: Path, monkeypatch: pytest.MonkeyPatch, synced: list[str]
) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda folder: folder == str(path))
    async with FilesStore(path) as store:
        await born(store)

    assert str(path) in synced
    assert str(path.parent) not in synced


# Locks, and lost waits


async def test_a_lock_is_given_back_although_a_child_just_forked_has_the_descriptor(
    path: Path,
) -> None:
    async with FilesStore(path) as store:
        await born(store)
    shard = Shard(str(path), shard_of("h"), is_new=False)
    shard.lock(0)
    of_the_child = os.dup(shard.descriptor)  # the same open file, as after a fork

    shard.close()

    other = Shard(str(path), shard_of("h"), is_new=False)
    other.lock(0)
    other.close()
    os.close(of_the_child)


async def test_a_folder_that_stays_locked_refuses_its_sessions_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minisession.stores._files.shard.BUSY_TIMEOUT", 0.05)
    async with FilesStore(path) as store:
        await store.commit([birth("a"), birth("z")], NOW)
        with locked(path, "a"):
            refused, stored = await store.commit([write("a"), write("z")], NOW)
            assert await items(store, "a") == {}  # who reads needs no lock

        assert type(refused) is StoreUnavailable
        assert f"{path}/{shard_of('a')} has been locked by another process" in str(refused)
        assert stored == Committed(0)
        assert await commit(store, write("a")) == Committed(0)


async def test_a_folder_that_is_held_for_a_moment_does_not_suffer_from_one_that_stays_locked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minisession.stores._files.shard.BUSY_TIMEOUT", 0.05)
    monkeypatch.setattr("minisession.stores._files.shard.FAIR_WAIT", 2)
    async with FilesStore(path) as store:
        await store.commit([birth("a"), birth("z")], NOW)
        with locked(path, "a"), ExitStack() as moment:
            moment.enter_context(locked(path, "z"))
            timer = threading.Timer(0.1, moment.close)
            timer.start()
            refused, stored = await store.commit([write("a"), write("z")], NOW)
            await anyio.to_thread.run_sync(timer.join)

    assert type(refused) is StoreUnavailable
    assert stored == Committed(0)


async def test_a_list_is_made_while_nobody_renames_what_it_lists(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minisession.stores._files.shard.BUSY_TIMEOUT", 0.05)
    async with FilesStore(path) as store:
        await born(store)
        with locked(path):
            for listed in (store.scan(NOW), store.of_principal("p", NOW)):
                with pytest.raises(StoreUnavailable, match="locked by another process"):
                    await listed

        assert [one.handle for one in await store.scan(NOW)] == ["h"]


async def test_a_change_that_was_not_taken_can_be_withdrawn(path: Path) -> None:
    async with FilesStore(path) as store:
        await born(store)
        taken, queued = (write(items={key: b"v"}) for key in ("taken", "queued"))
        outcomes: dict[str, Outcome] = {}

        async def wait(name: str, change: Write) -> None:
            outcomes[name] = await commit(store, change)

        async with anyio.create_task_group() as group:
            with locked(path):
                group.start_soon(wait, "taken", taken)
                await anyio.wait_all_tasks_blocked()
                await until(lambda: not store._place.writer._queued)
                group.start_soon(wait, "queued", queued)
                await until(lambda: bool(store._place.writer._queued))

                withdrawn = [store.withdraw(change) for change in (taken, queued, queued)]

        assert withdrawn == [False, True, False]
        assert outcomes["taken"] == Committed(0)
        assert type(outcomes["queued"]) is StoreUnavailable
        assert await items(store) == {"taken": b"v"}


async def test_a_cancelled_wait_stores_its_change_and_takes_nobody_elses(path: Path) -> None:
    async with FilesStore(path) as store:
        await born(store)
        outcomes: list[Outcome] = []

        async def patient() -> None:
            outcomes.append(await commit(store, write(items={"patient": b"v"})))

        scope = anyio.CancelScope()

        async def impatient() -> None:
            with scope:
                await commit(store, write(items={"impatient": b"v"}))

        async with anyio.create_task_group() as group:
            with locked(path):
                group.start_soon(patient)
                group.start_soon(impatient)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
                await anyio.wait_all_tasks_blocked()
        await commit(store, write(items={}))

        assert outcomes == [Committed(0)]
        assert await items(store) == {"patient": b"v", "impatient": b"v"}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncios_own_cancellation_loses_no_change_either(path: Path) -> None:
    async with FilesStore(path) as store:
        await born(store)
        with locked(path):
            # A task that no group owns: its own `cancel()`, past all shields, is what is tried.
            task = asyncio.ensure_future(commit(store, write()))
            await anyio.wait_all_tasks_blocked()
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await commit(store, write(items={}))

        assert await items(store) == {"k": b"v"}


async def test_readers_and_the_writer_never_meet_half_a_file(path: Path) -> None:
    """Two halves that are always written together are always read together."""
    async with FilesStore(path) as store:
        await born(store, a=b"0" * 30_000, b=b"0" * 30_000)
        torn: list[object] = []
        ended = False

        def read() -> None:
            while not ended:
                record = store.load_nowait("h", NOW)
                assert record is not None
                if record.items["a"] != record.items["b"]:
                    torn.append(record)

        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, read)
            try:
                for number in range(100):
                    value = b"%d" % number * 20_000
                    await commit(store, write(items={"a": value, "b": value}))
            finally:
                ended = True

    assert torn == []


# The folder


async def test_a_folder_that_was_deleted_is_made_anew_and_that_is_logged(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with FilesStore(path) as store:
        await born(store)
        run_script("import shutil, sys; shutil.rmtree(sys.argv[1])", path)

        assert await items(store) is None
        assert f"{path} was deleted, with all that was in it; it is made anew" in caplog.text
        assert await commit(store, write()) == Gone()
        await born(store, "new")
        assert await items(store, "new") == {}


async def test_files_of_others_in_the_folders_are_left_alone(path: Path) -> None:
    async with FilesStore(path) as store:
        await born(store)
        strange = [file_of(path).parent / "notes.txt", file_of(path).parent / "notes.tmp"]
        for one in [*strange, path / "lost+found"]:
            one.write_text("mine")
            os.utime(one, (0, 0))

        assert await store.purge(END + 1, 100) == 1

        assert all(one.read_text() == "mine" for one in [*strange, path / "lost+found"])
