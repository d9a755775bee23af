"""A database that is used while it closes: requests that go on when the lifespan was cancelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from minisession.stores._sqlite.database import Database
from tests.cancellation.left import NOBODY, descriptors


def test_a_database_that_is_used_while_it_closes_can_be_closed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(str(tmp_path / "sessions.db"))
    close_the_writer = database.writer.close

    def use_it_meanwhile(timeout: float) -> bool:
        database.use()
        database.reader.load(NOBODY, 0.0)
        return close_the_writer(timeout)

    monkeypatch.setattr(database.writer, "close", use_it_meanwhile)
    database.use()
    database.close()
    monkeypatch.undo()
    assert descriptors(tmp_path)

    database.close()

    assert not descriptors(tmp_path)
