"""What SQLite's result codes become: the file, what is wrong with it, and what to do."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest

from minisession.errors import SaveOutcomeUnknown, StoreError, StoreUnavailable
from minisession.stores._sqlite import batches
from minisession.stores._sqlite.batches import SQLiteBatches
from minisession.stores._sqlite.errors import code_of, explain, is_busy
from minisession.stores._writer import Purge, Writer

from .kit import NOW, birth

PATH = "/srv/sessions.db"


def failure(code: int, name: str = "SQLITE_SOMETHING") -> sqlite3.Error:
    """Return the error that the module raises for a result code."""
    error = sqlite3.OperationalError("in the words of SQLite")
    error.sqlite_errorcode = code
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (sqlite3.SQLITE_BUSY, ("is locked by another program", "End it, or let it commit")),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, ("is locked by another program",)),
        (sqlite3.SQLITE_LOCKED, ("is locked by another connection of this process",)),
        (sqlite3.SQLITE_FULL, ("cannot grow", "the disk or the quota is full", "Free some space")),
        (sqlite3.SQLITE_READONLY, ("cannot be written", "write access", "(-wal, -shm)")),
        (sqlite3.SQLITE_CANTOPEN, ("cannot be opened", "directory exists", "names a file")),
        (sqlite3.SQLITE_PERM, ("cannot be opened", "lacks the permission")),
        (sqlite3.SQLITE_IOERR, ("cannot be read or written", "input/output", "Check the disk")),
        (sqlite3.SQLITE_IOERR_FSYNC, ("cannot be read or written",)),
        (sqlite3.SQLITE_NOTADB, ("is not an SQLite database", "Name another file")),
        (sqlite3.SQLITE_CORRUPT, ("is damaged", "keep the file", f"`sqlite3 {PATH} .recover`")),
        (sqlite3.SQLITE_PROTOCOL, ("is locked", "network file system", "WAL needs a local one")),
        (sqlite3.SQLITE_INTERNAL, ("cannot be used",)),
    ],
)
def test_a_failure_names_the_file_what_is_wrong_and_what_to_do(
    code: int, words: tuple[str, ...]
) -> None:
    message = str(explain(failure(code, "SQLITE_IT"), PATH))

    assert message.startswith(f"session database {PATH} ")
    assert [part for part in words if part not in message] == []
    assert message.endswith(" (SQLITE_IT: in the words of SQLite)")
    assert "{" not in message


def test_a_name_that_python_cannot_read_is_damage_of_the_file() -> None:
    error = UnicodeDecodeError("utf-8", b"value", 0, 1, "invalid start byte")

    explained = explain(error, PATH)

    assert type(explained) is StoreUnavailable
    assert str(explained).startswith(f"session database {PATH} is damaged. Stop the application")
    assert f"`sqlite3 {PATH} .recover`" in str(explained)
    assert "value" not in str(explained)


def test_an_error_without_a_result_code_is_named_by_its_class() -> None:
    error = sqlite3.ProgrammingError("a closed database")

    assert code_of(error) == 0
    assert not is_busy(error)
    assert str(explain(error, PATH)) == (
        f"session database {PATH} cannot be used (ProgrammingError: a closed database)"
    )


@pytest.mark.parametrize(
    ("code", "busy"),
    [
        (sqlite3.SQLITE_BUSY, True),
        (sqlite3.SQLITE_BUSY_RECOVERY, True),
        (sqlite3.SQLITE_LOCKED, True),
        (sqlite3.SQLITE_LOCKED_SHAREDCACHE, True),
        (sqlite3.SQLITE_IOERR_LOCK, False),
        (sqlite3.SQLITE_FULL, False),
        (0, False),
    ],
)
def test_only_a_lock_of_others_leaves_the_connection_as_good_as_before(
    code: int, busy: bool
) -> None:
    assert is_busy(failure(code)) is busy


# What becomes of the jobs


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR])
def test_only_a_commit_that_left_no_mark_is_certainly_not_stored(code: int) -> None:
    class Failing:
        def execute(self, _: str) -> None:
            raise failure(code, "SQLITE_IT")

    made = SQLiteBatches(PATH, lambda: None)
    certain = code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL)

    with pytest.raises(sqlite3.Error if certain else SaveOutcomeUnknown) as caught:
        made._commit(Failing())  # type: ignore[arg-type]

    if not certain:
        assert str(caught.value).startswith(f"session database {PATH} cannot be read or written")
        assert str(caught.value).endswith("; it is not known what was stored")


@pytest.mark.anyio
async def test_a_purge_that_cannot_be_done_says_that_it_was_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "sessions.db")
    writer = Writer("a writer", lambda: SQLiteBatches(path, lambda: None))

    (answer,) = await writer.do([Purge(1 << 70)], NOW)
    writer.close(10)

    assert type(answer) is StoreError
    assert str(answer) == "purge: this change cannot be stored (OverflowError)"
    assert caplog.record_tuples == [
        ("minisession.stores", logging.ERROR, "a change cannot be stored: OverflowError")
    ]


@pytest.mark.anyio
async def test_a_change_that_fails_alone_is_explained_by_the_result_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise failure(sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT")

    monkeypatch.setattr(batches, "apply", fail)
    path = str(tmp_path / "sessions.db")
    writer = Writer("a writer", lambda: SQLiteBatches(path, lambda: None))

    answers = await writer.do([birth("one"), birth("two")], NOW)
    writer.close(10)

    assert [type(answer) for answer in answers] == [StoreUnavailable] * 2
    assert answers[0] is not answers[1]
    assert str(answers[0]).startswith(f"session database {path} is damaged. ")
    assert caplog.records == []
