"""The stores that outlive a process: one line for each, and every crash test tries them all."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from minisession.stores._files.form import Unreadable, decode
from minisession.stores._files.names import TEMPORARY, handle_of


@dataclass(frozen=True)
class Persistent:
    """A kind of store that keeps sessions in a folder.

    Attributes:
        name: what it is called.
        url: names the store in a folder.
        damage: what is wrong with its files; nothing if they are sound.
    """

    name: str
    url: Callable[[Path], str]
    damage: Callable[[Path], list[str]]


def _damage_of_a_database(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "sessions.db")) as connection:
        said = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        return said if said != ["ok"] else []


SQLITE = Persistent(
    "sqlite", lambda folder: f"sqlite:///{folder}/sessions.db", _damage_of_a_database
)


def _damage_of_files(folder: Path) -> list[str]:
    """Read every file: what cannot be read is damage, and so is what nobody has made."""
    said = [str(path) for path in folder.glob("sessions/damaged/*")]
    for path in folder.glob("sessions/??/*"):
        handle = handle_of(path.name)
        if path.suffix == TEMPORARY:  # a crash may leave one, under a name that nobody reads
            continue
        try:
            decode(str(handle), path.read_bytes())
        except Unreadable as error:
            said.append(f"{path} {error}")
    return said


FILES = Persistent("files", lambda folder: f"file://{folder}/sessions", _damage_of_files)

every_persistent_store = pytest.mark.parametrize(
    "kind", [pytest.param(kind, id=kind.name) for kind in [SQLITE, FILES]]
)
