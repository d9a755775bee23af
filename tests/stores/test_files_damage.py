"""What can stand where a session's file should be: reported, left as it was, ended on demand."""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from minisession.abc import Change, Committed, Destroy, Touch
from minisession.errors import StoreCorrupt
from minisession.stores._files.form import LARGEST, encode
from minisession.stores._files.names import name_of, shard_of
from minisession.stores._row import Row
from minisession.stores.files import FilesStore

from .kit import END, NOW, birth, born, commit, items, write

pytestmark = pytest.mark.anyio

Damage = Callable[[Path], None]


def empty(file: Path) -> None:
    file.write_bytes(b"")


def zeros(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def torn_at_its_end(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def torn_in_its_head(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def flipped_in_its_head(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b'"expires"', b'"Expires"'))


def of_another_program(file: Path) -> None:
    file.write_bytes(b"#!/bin/sh\nexit\n")


def of_another_session(file: Path) -> None:
    row = Row("somebody", bytes(32), NOW, END, END, None, {}, 0)
    file.write_bytes(encode(row))


def of_10_gigabytes(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(10 << 30)


def of_10_gigabytes_as_it_says(file: Path) -> None:
    content = bytearray(file.read_bytes())
    start = content.index(b"\n") + 1 + 32 + 4
    content[start : start + 8] = (LARGEST + 1).to_bytes(8, "big")
    file.write_bytes(content)


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()
    (file / "something").write_text("in it")


def a_link(file: Path) -> None:
    target = file.with_name("target")
    file.rename(target)
    file.symlink_to(target)


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def a_socket(file: Path) -> None:
    file.unlink()
    here = os.open(".", os.O_RDONLY)
    os.chdir(file.parent)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(file.name)
    finally:
        os.fchdir(here)
        os.close(here)


DAMAGES: list[Damage] = [
    *[empty, zeros, torn_at_its_end, torn_in_its_head, flipped_in_its_head, of_another_program],
    *[of_another_session, of_10_gigabytes, of_10_gigabytes_as_it_says],
    *[a_folder, a_link, a_pipe, a_socket],
]
every_damage = pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)

CHANGES: list[Change] = [birth(new=b"1"), write(), Touch("h", 0, END + 60), Destroy("h", 0)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


@pytest.fixture
def file(path: Path) -> Path:
    return path / shard_of("h") / name_of("h")


def end_of(file: Path, seconds: float) -> None:
    """Give it a time of change, as a copy or a crash may."""
    os.utime(file, (seconds, seconds), follow_symlinks=False)


def what_is_at(file: Path) -> tuple[object, ...]:
    """What is there, as far as anybody could change it."""
    status = file.lstat()
    kind = stat.S_IFMT(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return kind, file.readlink()
    if stat.S_ISREG(status.st_mode) and status.st_size < 1 << 20:
        return kind, file.read_bytes()
    return kind, status.st_ino, status.st_size


def replace_in(file: Path, old: bytes, new: bytes) -> bytes:
    content = file.read_bytes().replace(old, new, 1)
    file.write_bytes(content)
    return content


def is_there(file: Path) -> bool:
    return os.path.lexists(file)


def set_aside(path: Path) -> list[str]:
    return sorted(os.listdir(path / "damaged")) if is_there(path / "damaged") else []


@every_damage
async def test_who_loads_or_changes_it_is_told_and_it_stays_as_it_is(
    damage: Damage, path: Path, file: Path
) -> None:
    async with FilesStore(path) as store:
        await born(store, k=b"old")
        damage(file)
        before = what_is_at(file)

        with pytest.raises(StoreCorrupt) as caught:
            store.load_nowait("h", NOW)
        outcomes = [await commit(store, change) for change in CHANGES]

        for error in (caught.value, *outcomes):
            assert type(error) is StoreCorrupt
            assert f"session h: {file} " in str(error)
            assert "it was left as it is. To be rid of it: await manager.revoke(handle)" in str(
                error
            )
        assert what_is_at(file) == before


@every_damage
async def test_its_neighbours_in_a_batch_and_in_a_list_are_not_disturbed(
    damage: Damage, path: Path, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with FilesStore(path) as store:
        await store.commit([birth(), birth("h2")], NOW)
        damage(file)

        outcomes = await store.commit([write("h2"), write(), write("h2")], NOW)
        listed = [summary.handle for summary in await store.scan(NOW)]

        assert [type(outcome) for outcome in outcomes] == [Committed, StoreCorrupt, Committed]
        assert listed == ["h2"]
        assert "left out of a list: session h:" in caplog.text
        assert await store.alive(["h", "h2"], NOW) == {"h", "h2"}, "nobody has ended it"


@every_damage
async def test_revocation_ends_it(damage: Damage, path: Path, file: Path) -> None:
    async with FilesStore(path) as store:
        await born(store, k=b"old")
        damage(file)

        outcomes = await store.commit([Destroy("h", None), write(), birth(k=b"new")], NOW)

        assert [type(outcome).__name__ for outcome in outcomes] == [
            "Committed",
            "Gone",
            "Committed",
        ]
        assert await items(store) == {"k": b"new"}
        assert await commit(store, Destroy("h", None)) == Committed(0)
        assert not is_there(file)
        assert set_aside(path) == ([name_of("h")] if damage is a_folder else [])


@every_damage
async def test_a_purge_sets_it_aside_when_its_time_is_over_and_not_before(
    damage: Damage, path: Path, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with FilesStore(path) as store:
        await born(store)
        damage(file)
        end_of(file, END)
        before = what_is_at(file)

        assert await store.purge(END - 1, 10) == 0
        assert what_is_at(file) == before
        with caplog.at_level(logging.WARNING):
            assert await store.purge(END, 10) == 1

        kept = path / "damaged" / name_of("h")
        assert set_aside(path) == [name_of("h")]
        assert what_is_at(kept) == before
        assert f"{file} " in caplog.text
        assert f"it was moved to {kept}" in caplog.text
        assert await items(store) is None
        assert await store.purge(END, 10) == 0


async def test_nothing_that_was_set_aside_is_written_over(path: Path, file: Path) -> None:
    async with FilesStore(path) as store:
        for number in range(3):
            await born(store)
            replace_in(file, b"minisession", b"%d" % number)
            end_of(file, NOW)
            await store.purge(NOW, 10)

    name = name_of("h")
    assert set_aside(path) == [name, f"{name}.1", f"{name}.2"]
    assert b"2 session, format" in str(what_is_at(path / "damaged" / f"{name}.2")).encode()


async def test_damage_in_the_items_alone_ends_with_the_session(path: Path, file: Path) -> None:
    """Who it belongs to and until when is still known, so it is listed and it expires."""
    async with FilesStore(path) as store:
        await born(store, k=b"a value")
        replace_in(file, b"a value", b"a vALUE")

        with pytest.raises(StoreCorrupt, match="is damaged in its items"):
            await store.load("h", NOW)
        assert [summary.handle for summary in await store.scan(NOW)] == ["h"]
        end_of(file, NOW)
        assert await store.purge(NOW, 10) == 0
        assert await store.purge(END, 10) == 1
        assert set_aside(path) == []


async def test_what_a_newer_release_wrote_is_left_to_it(path: Path, file: Path) -> None:
    async with FilesStore(path) as store:
        await born(store)
        newer = replace_in(file, b"format 1", b"format 2")
        end_of(file, NOW)

        with pytest.raises(StoreCorrupt) as caught:
            await store.load("h", NOW)
        outcomes = [await commit(store, change) for change in CHANGES]
        assert await store.purge(END, 10) == 0

        for error in (caught.value, *outcomes):
            assert "is of format 2, and this release reads 1" in str(error)
            assert "Upgrade minisession here to the release that wrote it" in str(error)
        assert what_is_at(file)[1] == newer
        assert await commit(store, Destroy("h", None)) == Committed(0)
        assert not is_there(file)
