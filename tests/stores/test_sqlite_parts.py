"""What goes wrong behind the scenes: a checkpoint, a switch to WAL, a close that takes too long."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import anyio
import pytest

from minisession.abc import Committed
from minisession.errors import StoreUnavailable
from minisession.stores import _opened
from minisession.stores._sqlite import batches, checkpoints, connect
from minisession.stores.sqlite import SQLiteStore

from .kit import NOW, birth, born, commit, items, until, write

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


async def test_a_checkpoint_that_fails_is_logged_and_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoints, "INTERVAL", 0.001)
    checkpointer = checkpoints.Checkpointer(str(path.parent / "missing" / "sessions.db"))

    def logged(times: int) -> bool:
        return caplog.text.count("no checkpoint of") == times

    for number in (1, 2):
        checkpointer.note_commit()
        await until(partial(logged, number))
    checkpointer.close()


async def test_a_log_that_cannot_be_started_anew_spoils_no_commit(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(checkpoints, "INTERVAL", 0.001)
    monkeypatch.setattr(checkpoints, "WAL_LIMIT", 0)
    monkeypatch.setattr(batches, "restart_log", fail)
    async with SQLiteStore(path) as store:
        await born(store)
        while "stays long" not in caplog.text:
            assert await commit(store, write()) == Committed(0)

        assert await items(store) == {"k": b"v"}


def readers_database(path: Path) -> sqlite3.Connection:
    """Leave an empty database without WAL in the hands of a reader, who stops the switch to it."""
    reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    reader.execute("PRAGMA user_version = 0")
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM sqlite_master").fetchall()
    return reader


async def test_the_switch_to_wal_waits_for_others(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = readers_database(path)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        reader.close()

    # SQLite sometimes answers at once, whatever its time-out is; without one it always does.
    without_timeout = partial(sqlite3.connect, timeout=0)
    monkeypatch.setattr(
        connect, "_connect", lambda path: without_timeout(path, isolation_level=None)
    )
    monkeypatch.setattr(time, "sleep", sleep)

    connect.connect(str(path)).close()

    assert len(waits) == 1


async def test_the_switch_to_wal_does_not_wait_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "BUSY_TIMEOUT", 0.01)

    with (
        closing(readers_database(path)),
        pytest.raises(StoreUnavailable, match="is locked by another program"),
    ):
        connect.connect(str(path))


async def test_a_close_that_takes_too_long_says_what_still_waits(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_opened, "CLOSE_TIMEOUT", 0.01)
    store = SQLiteStore(path)
    await born(store)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await store.commit([birth("late")], NOW)

        await store.__aexit__(None, None, None)

    assert "changes still wait for the disk" in caplog.text
    monkeypatch.undo()
    await store.__aexit__(None, None, None)
    assert await store.alive(["late"], NOW) == {"late"}
