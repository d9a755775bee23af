"""`Row`: one stored session as a Python object, and what a change does to it.

It is the contract in executable form: the memory store keeps rows, files hold one each, and other
stores are compared with it. It knows no files, no locks and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from minisession.abc import (
    Change,
    Committed,
    Create,
    Destroy,
    Facts,
    Gone,
    Outcome,
    Record,
    Summary,
    Touch,
    Write,
    admits,
    create_is_possible,
    size_of,
)
from minisession.errors import Conflict, SessionTooLarge


def too_large(handle: str, size: int, max_size: int) -> SessionTooLarge:
    """Return the outcome of a change that would make a session weigh too much."""
    return SessionTooLarge(
        f"session {handle}: with this change and those of other requests it would have"
        f" {size:,} bytes; SessionConfig(max_size={max_size}) allows no more"
    )


def conflict(change: Write, current: bytes | None) -> Conflict:
    """Return the outcome of a compare-and-set that came too late."""
    return Conflict(f"session {change.handle}: the key was changed by somebody else", current)


@dataclass(slots=True)
class Row:
    """A session in the store. Of each item it keeps the epoch that wrote it last.

    An item without data is a tombstone: it tells late writers that the key was dropped since the
    last rotation, and goes when the grace is over.
    """

    handle: str
    secret: bytes = field(repr=False)
    created: float
    expires: float
    cookie_until: float
    principal: str | None
    items: dict[str, tuple[bytes | None, int]] = field(repr=False)
    size: int
    epoch: int = 0
    previous: bytes | None = field(default=None, repr=False)
    previous_loads: bool = False
    grace_until: float = 0.0
    cleared: int = -1
    tombstones: set[str] = field(default_factory=set)

    @classmethod
    def created_by(cls, change: Create) -> Row | SessionTooLarge:
        """Return the row that a `Create` brings to life, or why it may not."""
        size = sum(size_of(key, data) for key, data in change.items.items())
        if size > change.max_size:
            return too_large(change.handle, size, change.max_size)
        return cls(
            handle=change.handle,
            secret=change.secret,
            created=change.created,
            expires=change.expires,
            cookie_until=change.cookie_until,
            principal=change.principal or None,
            items={key: (data, 0) for key, data in change.items.items()},
            size=size,
        )

    @property
    def facts(self) -> Facts:
        """What the rules must know."""
        return Facts(self.epoch, self.expires, self.grace_until, self.previous_loads, self.cleared)

    def epoch_of(self, key: str) -> int:
        """Return the epoch in which a key was last written or dropped, -1 if never."""
        return self.items[key][1] if key in self.items else -1

    def data_of(self, key: str) -> bytes | None:
        """Return what is stored under a key, None if nothing is."""
        return self.items[key][0] if key in self.items else None

    def record(self) -> Record:
        """Return the session as a store hands it out: a copy that nothing here can change."""
        return Record(
            handle=self.handle,
            secret=self.secret,
            epoch=self.epoch,
            items={key: data for key, (data, _) in self.items.items() if data is not None},
            created=self.created,
            expires=self.expires,
            cookie_until=self.cookie_until,
            previous=self.previous,
            previous_loads=self.previous_loads,
            grace_until=self.grace_until,
            principal=self.principal,
        )

    def summary(self) -> Summary:
        """Return the session without its data."""
        return Summary(self.handle, self.created, self.expires, self.principal)

    def apply(self, change: Write | Touch, now: float) -> Outcome:
        """Apply a change wholly, or not at all, and say which."""
        if not admits(self.facts, change, now, self.epoch_of):
            return Gone(replaced=self.expires > now)
        if isinstance(change, Touch):
            self.expires = max(self.expires, change.expires)
            return Committed(self.epoch)
        if change.expect and self.data_of(change.expect.key) != change.expect.value:
            return conflict(change, self.data_of(change.expect.key))
        growth = self._growth(change)
        if growth > 0 and self.size + growth > change.max_size:
            return too_large(self.handle, self.size + growth, change.max_size)
        self.size += growth
        self._write(change, now)
        return Committed(self.epoch)

    def _growth(self, change: Write) -> int:
        """Return by how many bytes the change would make the session larger."""
        growth = -self.size if change.clear else 0
        for key, data in change.items.items():
            before = None if change.clear else self.data_of(key)
            growth += 0 if data is None else size_of(key, data)
            growth -= 0 if before is None else size_of(key, before)
        return growth

    def _write(self, change: Write, now: float) -> None:
        in_grace = change.epoch < self.epoch
        if change.rotation is not None:
            self._drop_tombstones()
            self.previous, self.secret = self.secret, change.rotation.secret
            self.previous_loads = change.rotation.previous_loads
            self.grace_until = change.rotation.grace_until
            self.epoch += 1
        if change.clear:
            self.items.clear()
            self.tombstones.clear()
            self.cleared = self.epoch
        self._write_items(change, self.epoch - in_grace, now)
        if not in_grace:
            self._write_rest(change)

    def _write_items(self, change: Write, epoch: int, now: float) -> None:
        if self.tombstones and now >= self.grace_until:
            self._drop_tombstones()
        for key, data in change.items.items():
            if data is not None:
                self.items[key] = (data, epoch)
                self.tombstones.discard(key)
            elif now < self.grace_until:
                self.items[key] = (None, epoch)
                self.tombstones.add(key)
            else:
                self.items.pop(key, None)

    def _write_rest(self, change: Write) -> None:
        self.expires = change.expires
        if change.cookie_until is not None:
            self.cookie_until = change.cookie_until
        if change.principal is not None:
            self.principal = change.principal or None

    def _drop_tombstones(self) -> None:
        for key in self.tombstones:
            del self.items[key]
        self.tombstones.clear()


def after(row: Row | None, change: Change, now: float) -> tuple[Row | None, Outcome]:
    """Return what a change makes of the row of its handle, None being no row, and its outcome.

    The row itself is changed if the outcome is `Committed`, and only then.
    """
    if isinstance(change, Create):
        return _after_create(row, change, now)
    if row is None:
        return None, Gone()
    if not isinstance(change, Destroy):
        return row, row.apply(change, now)
    if not admits(row.facts, change, now, row.epoch_of):
        return row, Gone(replaced=row.expires > now)
    return None, Committed(row.epoch)


def _after_create(row: Row | None, change: Create, now: float) -> tuple[Row | None, Outcome]:
    if not create_is_possible(change, None if row is None else row.facts, now):
        return row, Gone()
    created = Row.created_by(change)
    if isinstance(created, SessionTooLarge):
        return row, created
    return created, Committed(created.epoch)
