"""A row of the table `session` as a checked Python value, and the record made of it.

It owns the question "is this row damaged?". A damaged row is reported with its handle and left as
it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import NoneType
from typing import Any

from minisession.abc import Facts, Record
from minisession.errors import StoreCorrupt

from .schema import HASH_LENGTH

COLUMNS = (
    "id, secret, epoch, created, expires, cookie_until,"
    " previous, previous_loads, grace_until, cleared, principal, size"
)

TYPES = {
    (int, bytes, int, float, float, float, previous, int, float, int, principal, int)
    for previous in (bytes, NoneType)
    for principal in (str, NoneType)
}
"""Of the columns, as far as STRICT tables and nobody else's pen keep them."""


@dataclass(slots=True)
class SessionRow:
    """The row of a session, without its items."""

    id: int
    secret: bytes
    epoch: int
    created: float
    expires: float
    cookie_until: float
    previous: bytes | None
    previous_loads: int
    grace_until: float
    cleared: int
    principal: str | None
    size: int

    @property
    def facts(self) -> Facts:
        """What the rules must know."""
        loads = bool(self.previous_loads)
        return Facts(self.epoch, self.expires, self.grace_until, loads, self.cleared)


def damaged(handle: str, what: str) -> StoreCorrupt:
    """Return the error that says which session cannot be read, and how to end it."""
    return StoreCorrupt(
        f"session {handle}: {what}; its row was left as it is."
        " To be rid of it: await manager.revoke(handle)"
    )


@contextmanager
def readable(handle: str) -> Iterator[None]:
    """Report a text that is no UTF-8, on which Python gives up, not SQLite, as a damaged row."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if hasattr(error, "sqlite_errorcode"):
            raise
        raise damaged(handle, "a stored text is damaged") from None


def checked(handle: str, values: tuple[Any, ...]) -> SessionRow:
    """Return the row, if its columns hold what they must.

    Raises:
        StoreCorrupt: they do not.
    """
    row = SessionRow(*values)
    if (
        tuple(map(type, values)) not in TYPES
        or len(row.secret) != HASH_LENGTH
        or (row.previous is not None and len(row.previous) != HASH_LENGTH)
        or row.epoch < 0
    ):
        raise damaged(handle, "the stored row is damaged")
    return row


def record_of(handle: str, rows: list[tuple[Any, ...]]) -> Record:
    """Return the record that a session's row joined with its items makes.

    Raises:
        StoreCorrupt: a column holds what it cannot hold.
    """
    row = checked(handle, rows[0][:-2])
    items = {values[-2]: values[-1] for values in rows if values[-2] is not None}
    if not {bytes}.issuperset(map(type, items.values())):
        raise damaged(handle, "a stored item is damaged")
    return Record(
        handle=handle,
        secret=row.secret,
        epoch=row.epoch,
        items=items,
        created=row.created,
        expires=row.expires,
        cookie_until=row.cookie_until,
        previous=row.previous,
        previous_loads=bool(row.previous_loads),
        grace_until=row.grace_until,
        principal=row.principal,
    )
