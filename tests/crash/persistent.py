"""The stores that outlive a process: one line for each, and the crash tests try them all."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from minisession.stores._files.form import Unreadable, decode
from minisession.stores._files.names import TEMPORARY, handle_of
from tests import redis_servers
from tests.redis_servers import Server


@dataclass(frozen=True)
class Persistent:
    """A kind of store that keeps sessions in a folder, or on a server.

    Attributes:
        name: what it is called.
        module: what its server has to import.
        url: names the store in a folder; on a server, the one that belongs to the folder's parent.
        damage: what is wrong with its files; nothing if they are sound.
    """

    name: str
    module: str
    url: Callable[[Path], str]
    damage: Callable[[Path], list[str]]


def _damage_of_a_database(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "sessions.db")) as connection:
        said = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        return said if said != ["ok"] else []


SQLITE = Persistent(
    "sqlite",
    "minisession.stores.sqlite",
    lambda folder: f"sqlite:///{folder}/sessions.db",
    _damage_of_a_database,
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


FILES = Persistent(
    "files",
    "minisession.stores.files",
    lambda folder: f"file://{folder}/sessions",
    _damage_of_files,
)


def kept_by(server: Callable[[], Server], **options: object) -> Persistent:
    """Return the store on a Redis or Valkey server, whose files are its own affair."""

    def url(folder: Path) -> str:
        return server().url(prefix=f"{folder.parent.name}:", **options)

    return Persistent("redis", "minisession.stores._redis.opened", url, lambda folder: [])


REDIS = kept_by(redis_servers.redis)
NEEDS = {"redis": redis_servers.NEEDS_REDIS}


def _each(*kinds: Persistent) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "kind",
        [pytest.param(kind, id=kind.name, marks=NEEDS.get(kind.name, ())) for kind in kinds],
    )


every_persistent_store = _each(SQLITE, FILES, REDIS)
every_store_on_disk = _each(SQLITE, FILES)
