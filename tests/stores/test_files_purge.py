"""Purges of the store in files: what they believe, how far they go at once, what they leave."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from minisession.abc import Committed, Touch
from minisession.errors import StoreUnavailable
from minisession.stores._files import purge
from minisession.stores._files.names import ALPHABET, SHARDS, name_of, shard_of, temporary_of
from minisession.stores._files.purge import Tour
from minisession.stores._files.shard import Shard
from minisession.stores.files import FilesStore

from .kit import END, NOW, birth, born, commit, items, write

pytestmark = pytest.mark.anyio

FAR_AND_WIDE = [first + second for first in ALPHABET[::8] for second in "-z"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


@pytest.fixture
def file(path: Path) -> Path:
    return path / shard_of("h") / name_of("h")


def end_of(file: Path) -> float:
    return file.stat().st_mtime


def is_there(path: Path) -> bool:
    return path.exists()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


async def test_the_time_of_change_of_a_file_is_the_end_of_its_session(
    path: Path, file: Path
) -> None:
    async with FilesStore(path) as store:
        await commit(store, replace(birth(), expires=NOW + 1.75))
        assert end_of(file) == NOW + 1
        await commit(store, Touch("h", 0, END))
        assert end_of(file) == END


@pytest.mark.parametrize("expires", [1e300, float("inf")])
async def test_a_session_may_live_longer_than_file_systems_can_count(
    path: Path, expires: float
) -> None:
    async with FilesStore(path) as store:
        await commit(store, replace(birth(), expires=expires))

        assert await store.purge(NOW, 10) == 0
        assert await items(store) == {}


async def test_a_time_of_change_that_is_too_early_removes_nothing_and_is_put_right(
    path: Path, file: Path
) -> None:
    async with FilesStore(path) as store:
        await born(store, k=b"v")
        os.utime(file, (0, 0))

        assert await store.purge(NOW, 10) == 0

        assert await items(store) == {"k": b"v"}
        assert end_of(file) == END


async def test_a_time_of_change_that_is_too_late_removes_later(path: Path, file: Path) -> None:
    async with FilesStore(path) as store:
        await born(store)
        os.utime(file, (END + 100, END + 100))

        assert await store.purge(END, 10) == 0
        assert await store.load("h", END) is None, "it has ended all the same"
        assert await store.purge(END + 100, 10) == 1


async def test_a_session_that_is_extended_while_a_purge_looks_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The purge has seen that its time was over; what is in it counts, under the lock."""
    async with FilesStore(path) as store:
        await born(store)
        monkeypatch.setattr(purge._Visit, "_is_due", lambda *_: True)

        assert await store.purge(NOW, 10) == 0
        assert await items(store) == {}


async def test_a_purge_goes_on_where_the_last_one_stopped(path: Path) -> None:
    async with FilesStore(path) as store:
        await store.commit([birth(handle) for handle in FAR_AND_WIDE], NOW)

        removed = [await store.purge(END, 5) for _ in range(4)]

    assert removed == [5, 5, 5, 1]


async def test_a_purge_stops_within_a_folder_and_in_steps_of_bounded_size(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "STEP", 10)
    monkeypatch.setattr(purge, "AT_ONCE", 2)
    steps: list[int] = []
    go_on = Tour.go_on

    def noted(tour: Tour, *args: object) -> None:
        go_on(tour, *args)  # type: ignore[arg-type]
        steps.append(tour.removed)

    monkeypatch.setattr(Tour, "go_on", noted)
    async with FilesStore(path) as store:
        await store.commit([birth(f"h{number}") for number in range(20)], NOW)

        assert await store.purge(END, 15) == 15
        assert steps[-1] == 15
        assert len(steps) > 1
        assert await store.purge(END, 15) == 5
        assert await store.purge(END, 15) == 0
    assert len(steps) > len(SHARDS) // 10


async def test_a_folder_that_stays_locked_is_passed_over_by_the_next_purge(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minisession.stores._files.shard.BUSY_TIMEOUT", 0.01)
    async with FilesStore(path) as store:
        await store.commit([birth("a"), birth("z")], NOW)
        with locked(path / shard_of("a")):
            with pytest.raises(StoreUnavailable, match="locked by another process"):
                await store.purge(END, 10)
            assert await store.alive(["a", "z"], NOW) == {"a", "z"}
            assert store._place.purge_from == SHARDS.index(shard_of("a")) + 1
            with pytest.raises(StoreUnavailable):
                await store.purge(END, 10)

            assert await store.alive(["a", "z"], NOW) == {"a"}
        assert await store.purge(END, 10) == 1


async def test_what_should_be_a_folder_and_is_not_is_named(path: Path) -> None:
    os.mkdir(path)
    (path / "07").write_text("no folder")
    store = FilesStore(path)

    with pytest.raises(StoreUnavailable, match=f"{path}/07: what should be a folder is"):
        await store.purge(NOW, 10)
    with pytest.raises(StoreUnavailable, match=f"{path}/07: what should be a folder is"):
        await store.scan(NOW)


async def test_where_nothing_can_be_set_aside_the_rest_is_purged_all_the_same(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handles = [f"h{number}" for number in range(5)]
    async with FilesStore(path) as store:
        await store.commit([birth(handle) for handle in handles], NOW)
        for handle in handles[::2]:
            damaged = path / shard_of(handle) / name_of(handle)
            damaged.write_bytes(b"torn")
            os.utime(damaged, (NOW, NOW))
        (path / "damaged").write_text("no folder")

        removed = await store.purge(END, 10)

        assert removed == 2
        assert await store.alive(handles, NOW) == set(handles[::2])
    assert f"not set aside: session files: {path}/damaged: what should be a folder" in caplog.text


async def test_what_a_crash_has_left_hinders_nobody_and_goes(path: Path, file: Path) -> None:
    debris = file.with_name(temporary_of(file.name))
    async with FilesStore(path) as store:
        await born(store)
        debris.write_text("half a file")

        assert await commit(store, write()) == Committed(0)
        assert not is_there(debris)
        debris.write_text("half a file")
        assert await store.purge(NOW, 10) == 0

    assert not is_there(debris)


@pytest.mark.parametrize("moment", ["while it looks at its time", "before it has the lock"])
async def test_what_another_process_removes_meanwhile_is_not_counted(
    path: Path, file: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_due, lock = purge._Visit._is_due, Shard.lock

    def removed_and_looked_at(visit: purge._Visit, entry: os.DirEntry[str]) -> bool:
        os.unlink(file)
        return is_due(visit, entry)

    def removed_and_locked(shard: Shard, deadline: float) -> None:
        os.unlink(file)
        lock(shard, deadline)

    async with FilesStore(path) as store:
        await born(store)
        if moment.startswith("while"):
            monkeypatch.setattr(purge._Visit, "_is_due", removed_and_looked_at)
        else:
            monkeypatch.setattr(Shard, "lock", removed_and_locked)

        assert await store.purge(END, 10) == 0
