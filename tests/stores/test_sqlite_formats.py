"""Files of other versions: what an older one has written is read, what a newer one has, is left."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from minisession.abc import Committed, Gone, Write
from minisession.cli import main
from minisession.errors import StoreUnavailable
from minisession.stores._sqlite import batches, connect, inspection, schema
from minisession.stores.sqlite import SQLiteStore

from .kit import END, LIMIT, NOW, born, commit, items, write

pytestmark = pytest.mark.anyio

FORMATS = Path(__file__).parent / "formats"

NEXT = [
    "ALTER TABLE session ADD COLUMN visits INTEGER NOT NULL DEFAULT 7",
    "UPDATE session SET principal = upper(principal)",
]
"""What a version 2 could be."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
def old(path: Path) -> Path:
    """A file as version 1 wrote it: sessions, one of them rotated, with a tombstone."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((FORMATS / "sqlite-1.sql").read_text())
    return path


def upgrade(
    monkeypatch: pytest.MonkeyPatch, statements: list[str] = NEXT, version: int = 2
) -> None:
    """Have this process know a newer version, and the way there."""
    migrations = dict.fromkeys(range(1, version), statements)
    monkeypatch.setattr(schema, "MIGRATIONS", migrations)
    monkeypatch.setattr(schema, "VERSION", version)
    for user in (connect, batches, inspection):
        monkeypatch.setattr(user, "VERSION", version)


def first(path: Path, query: str) -> object:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchone()[0]


def edit(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


def content(path: Path) -> bytes:
    return path.read_bytes()


async def test_what_version_1_has_written_is_read_and_changed(old: Path) -> None:
    async with SQLiteStore(old) as store:
        rotated = await store.load("rotated", NOW)
        late = Write("rotated", 0, END, LIMIT, {"dropped": b"late"})
        outcomes = await store.commit([late, write("plain", {"é": None})], NOW)

        assert rotated is not None
        assert (rotated.epoch, rotated.secret, rotated.previous) == (1, b"\2" * 32, b"\1" * 32)
        assert (rotated.items, rotated.principal) == ({"kept": b"1", "new": b"3"}, "ada")
        assert outcomes == [Gone(replaced=True), Committed(0)]
        assert await items(store, "plain") == {"cart": b'["tea"]'}


def test_the_file_of_each_version_is_kept_for_these_tests() -> None:
    versions = range(1, schema.VERSION + 1)

    assert {file.name for file in FORMATS.iterdir()} == {f"sqlite-{each}.sql" for each in versions}
    assert set(schema.MIGRATIONS) == set(versions[:-1])


@pytest.mark.parametrize("version", [2, 3])
async def test_an_older_file_is_brought_up_to_date_with_all_that_is_in_it(
    old: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = ["UPDATE session SET principal = principal || '!'"]
    upgrade(monkeypatch, statements, version)

    async with SQLiteStore(old) as store:
        loaded = [await store.load(handle, NOW) for handle in ("plain", "rotated", "short")]

    assert [dict(record.items) for record in loaded if record] == [
        {"cart": b'["tea"]', "é": b'{"~set":[1]}'},
        {"kept": b"1", "new": b"3"},
        {},
    ]
    assert [record.principal for record in loaded if record] == [
        None,
        "ada" + "!" * (version - 1),
        None,
    ]
    assert first(old, "PRAGMA user_version") == version


async def test_a_new_file_is_made_in_the_newest_version_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade(monkeypatch, ["no SQL"])

    async with SQLiteStore(path) as store:
        await born(store)

    assert first(path, "PRAGMA user_version") == 2


async def test_processes_that_come_first_change_the_file_once(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade(monkeypatch)

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(anyio.to_thread.run_sync, open_and_close, str(old))

    assert first(old, "SELECT sum(visits) FROM session") == 3 * 7


def open_and_close(path: str) -> None:
    connect.connect(path).close()


async def test_a_change_of_version_that_fails_leaves_the_older_one(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade(monkeypatch, [*NEXT, "INSERT INTO nowhere VALUES (1)"])

    with pytest.raises(StoreUnavailable, match="no such table: nowhere"):
        await SQLiteStore(old).load("plain", NOW)

    monkeypatch.undo()
    assert first(old, "SELECT principal FROM session WHERE handle = 'rotated'") == "ada"
    assert await commit(SQLiteStore(old), write("plain")) == Committed(0)


async def test_a_newer_file_is_refused_with_advice_and_left_as_it_is(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await born(store)
    edit(path, "PRAGMA user_version = 2")
    before = content(path)
    store = SQLiteStore(path)

    messages: list[str] = []
    for refused in (
        store.__aenter__,
        lambda: store.load("h", NOW),
        lambda: store.purge(NOW, 1),
        lambda: store.scan(NOW),
        lambda: store.of_principal("p", NOW),
        lambda: store.alive(["h"], NOW),
        lambda: store.inspect(NOW),
        store.verify,
    ):
        with pytest.raises(StoreUnavailable) as caught:
            await refused()
        messages.append(str(caught.value))
    outcome = await commit(store, write())

    assert {*messages, str(outcome)} == {
        f"session database {path} was written by a newer minisession (schema 2; this one knows 1)"
        " and was left as it is. Upgrade minisession here (pip install --upgrade minisession), or"
        " name another file"
    }
    assert content(path) == before


async def test_who_has_opened_a_file_writes_nothing_to_it_once_it_is_newer(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await born(store)
        edit(path, "PRAGMA user_version = 2")

        outcomes = [await commit(store, write()) for _ in range(2)]

    told, later = map(str, outcomes)
    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
    assert "was changed by another minisession (schema 2; this one writes 1)" in told
    assert "was written by a newer minisession (schema 2; this one knows 1)" in later
    assert first(path, "SELECT count(*) FROM item") == 0


async def test_a_version_that_no_release_has_is_of_another_program(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await born(store)
    edit(path, "PRAGMA user_version = -1")
    before = content(path)

    with pytest.raises(StoreUnavailable, match="is a database of another program"):
        await SQLiteStore(path).load("h", NOW)

    assert content(path) == before


async def test_who_looks_at_an_older_file_leaves_it_as_it_is(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade(monkeypatch)
    before = content(old)
    store = SQLiteStore(old)

    with pytest.raises(StoreUnavailable, match=r"older minisession \(schema 1; this one keeps 2\)"):
        store.is_there()
    with pytest.raises(StoreUnavailable, match="was left as it is"):
        await store.inspect(NOW)
    with pytest.raises(StoreUnavailable, match="was left as it is"):
        await store.verify()

    assert content(old) == before


@pytest.mark.parametrize("command", ["stats", "check", "purge"])
def test_the_command_line_tells_the_version_of_an_older_file_and_leaves_it(
    command: str, old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    upgrade(monkeypatch)
    before = content(old)

    assert main(["store", command, f"sqlite:///{old}"]) == 1

    assert "was written by an older minisession (schema 1;" in capsys.readouterr().err
    assert content(old) == before
