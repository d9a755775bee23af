"""What the store in files says of its folder as a whole, and what it finds there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minisession.abc import Inspects
from minisession.errors import StoreUnavailable
from minisession.stores._files import inspection
from minisession.stores._files.names import name_of, shard_of
from minisession.stores.files import FilesStore

from .kit import END, NOW, born

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


def file_of(folder: Path, handle: str) -> Path:
    return folder / shard_of(handle) / name_of(handle)


async def test_a_folder_is_there_once_the_store_was_opened_and_asking_makes_none(
    folder: Path,
) -> None:
    store = FilesStore(folder)
    before = store.is_there(), store.is_there()  # asking makes none

    async with store:
        after = store.is_there()

    assert isinstance(store, Inspects)
    assert (before, after) == ((False, False), True)


async def test_it_counts_what_waits_for_a_purge_and_the_room_of_everything(folder: Path) -> None:
    async with FilesStore(folder) as store:
        for handle in ("ada", "bob", "eve"):
            await born(store, handle, k=b"v")

        living, later = await store.inspect(NOW), await store.inspect(END)

    rooms = [file_of(folder, handle).stat().st_blocks * 512 for handle in ("ada", "bob", "eve")]
    assert (living.format, living.expired, living.bytes) == ("files, format 1", 0, sum(rooms))
    assert later.expired == 3


async def test_an_empty_folder_is_sound_and_takes_no_room(folder: Path) -> None:
    async with FilesStore(folder) as store:
        inspected, found = await store.inspect(NOW), await store.verify()

    assert (inspected.expired, inspected.bytes, found) == (0, 0, [])


async def test_what_lists_leave_out_is_found(folder: Path) -> None:
    async with FilesStore(folder) as store:
        for handle in ("ada", "bob"):
            await born(store, handle)
        sound = await store.verify()
        file_of(folder, "bob").write_bytes(b"torn")

        found = await store.verify()

    assert sound == []
    assert len(found) == 1
    assert found[0].startswith("session bob: ")
    assert "revoke" in found[0]


async def test_what_a_purge_has_set_aside_is_named(folder: Path) -> None:
    async with FilesStore(folder) as store:
        await born(store, "bob")
        damaged = file_of(folder, "bob")
        damaged.write_bytes(b"torn")
        os.utime(damaged, (NOW, NOW))
        await store.purge(END, 10)

        found = await store.verify()

    assert [each.partition(":")[0] for each in found] == [f"{folder}/damaged"]
    assert "set aside by a purge: 1;" in found[0]


async def test_a_file_that_goes_meanwhile_is_not_counted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FilesStore(folder) as store:
        await born(store, "bob")
        listed = inspection._entries

        def too_late(path: str) -> Any:
            for entry in list(listed(path)):
                Path(entry.path).unlink()
                yield entry

        monkeypatch.setattr(inspection, "_entries", too_late)
        inspected = await store.inspect(END)

    assert (inspected.expired, inspected.bytes) == (0, 0)


def spoil(shard: Path) -> None:
    for file in shard.iterdir():
        file.unlink()
    shard.rmdir()
    shard.write_bytes(b"no folder")


@pytest.mark.parametrize(
    "ask",
    [lambda store: store.inspect(NOW), lambda store: store.verify()],
    ids=["inspect", "verify"],
)
async def test_a_folder_that_cannot_be_read_is_told(
    folder: Path, ask: Callable[[FilesStore], Any]
) -> None:
    async with FilesStore(folder) as store:
        await born(store, "bob")
        spoil(folder / shard_of("bob"))

        with pytest.raises(StoreUnavailable, match=errno.errorcode[errno.ENOTDIR]):
            await ask(store)
