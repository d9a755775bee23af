"""What the SQLite store says of its file as a whole, and what it finds there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from minisession.abc import Inspects
from minisession.errors import StoreUnavailable
from minisession.stores._sqlite import inspection
from minisession.stores.memory import MemoryStore
from minisession.stores.sqlite import SQLiteStore

from .kit import END, NOW, birth, born

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


def edit(path: Path, *statements: str) -> None:
    """Change the file behind the store's back, as a person with a shell does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def replace_content(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)


def damage_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 : page * 4096 + 8] = b"\xff" * 8
    path.write_bytes(content)


def test_who_keeps_sessions_in_a_file_can_be_inspected(path: Path) -> None:
    assert isinstance(SQLiteStore(path), Inspects)
    assert not isinstance(MemoryStore(), Inspects)


async def test_a_file_is_there_once_the_store_was_opened_and_asking_makes_none(path: Path) -> None:
    store = SQLiteStore(path)
    before = store.is_there(), size(path)

    async with store:
        after = store.is_there()

    assert (before, after) == ((False, 0), True)


def test_an_empty_file_is_no_store_yet_and_stays_empty(path: Path) -> None:
    path.touch()

    assert not SQLiteStore(path).is_there()
    assert path.stat().st_size == 0


async def test_it_counts_what_waits_for_a_purge_and_the_room(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await store.commit([birth(f"h{n}", k=b"v" * 10_000) for n in range(10)], NOW)
        full = await store.inspect(NOW)
        expired = await store.inspect(END)
        await store.purge(END, 10)
        purged = await store.inspect(END)
        on_disk = sum(size(path.with_name(f"sessions.db{end}")) for end in ("", "-wal"))

    assert (full.format, full.expired, full.free) == ("SQLite, schema 1", 0, 0)
    assert full.bytes is not None
    assert full.bytes > 100_000
    assert (expired.expired, purged.expired) == (10, 0)
    assert purged.free is not None
    assert purged.free > 90_000
    assert purged.bytes == on_disk


def test_a_log_that_is_gone_takes_no_room(path: Path) -> None:
    replace_content(path)

    assert inspection._size_of(str(path)) == size(path)
    assert inspection._size_of(f"{path}-wal") == 0


async def test_a_sound_file_has_nothing_to_report(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await born(store, k=b"v")

        assert await store.verify() == []


async def test_values_without_a_session_are_found_and_the_line_that_removes_them_does(
    path: Path,
) -> None:
    async with SQLiteStore(path) as store:
        await born(store, a=b"1", b=b"2")
        edit(path, "DELETE FROM session")

        [found] = await store.verify()
        edit(path, found.split("'")[1])

        assert f"{path}: 2 stored values belong to no session" in found
        assert await store.verify() == []


@pytest.mark.parametrize("column", ["handle", "principal"])
async def test_a_text_that_stops_every_list_is_found_and_the_line_that_ends_it_does(
    path: Path, column: str
) -> None:
    async with SQLiteStore(path) as store:
        await born(store, "sound", k=b"v")
        await born(store, "damaged", k=b"v")
        edit(path, f"UPDATE session SET {column} = CAST(x'ff' AS TEXT) WHERE handle = 'damaged'")
        with pytest.raises(StoreUnavailable):
            await store.scan(NOW)

        [found] = await store.verify()
        edit(path, found.split("'")[1])
        await store.purge(NOW, 10)

        assert f"{path}: the handle or principal in row 2 of `session` is damaged" in found
        assert [listed.handle for listed in await store.scan(NOW)] == ["sound"]
        assert await store.verify() == []


async def test_what_sqlite_finds_is_told_with_advice(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await store.commit([birth(f"h{n}", k=b"v") for n in range(5)], NOW)
    edit(
        path,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = replace(sql, 'item (session, key)', 'item (key, session)')"
        " WHERE name = 'item_key'",
    )

    found = await SQLiteStore(path).verify()

    assert any("missing from index item_key" in what for what in found)
    assert all("restore a backup" in what and ".recover" in what for what in found)


async def test_a_file_of_something_else_cannot_be_looked_at(path: Path) -> None:
    replace_content(path)
    store = SQLiteStore(path)

    for look in (store.verify, lambda: store.inspect(NOW)):
        with pytest.raises(StoreUnavailable, match="is not an SQLite database"):
            await look()


async def test_pages_that_cannot_be_read_at_all_are_told(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await store.commit([birth(f"h{n}", k=b"v" * 500) for n in range(50)], NOW)
    damage_pages(path)
    store = SQLiteStore(path)

    for look in (store.verify, lambda: store.inspect(NOW)):
        with pytest.raises(StoreUnavailable, match="is damaged"):
            await look()
