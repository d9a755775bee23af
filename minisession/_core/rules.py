"""Who may read a stored session, and which change still counts.

Both rules are asked with the facts of one stored session and answer at once. Every store obeys
them: those in Python by calling these functions, others by saying the same in their language.

    now -> epoch 3                                    epoch 4
    ────────────────────────┬─────────────────────────┬──────────────────────────
    secret A is current     │ A is stale; with         │ A is reused: refused,
                            │ `previous_loads` it      │ and worth a log line
                            │ still loads, as epoch 3  │
                            │ late writes of 3 count   │ writes of 3 are Gone
                            rotation                   rotation + rotation_grace
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from minisession._ids import same_hash

from .change import Create, Destroy, Facts, Record, Touch, Write


class Standing(Enum):
    """What a presented secret is worth for a record."""

    CURRENT = "current"
    BORROWED = "borrowed"
    """The previous secret, which `regenerate(delete_old_session=False)` lets load for a while."""
    STALE = "stale"
    """Replaced within the grace: its request was on the way when the id changed."""
    REUSED = "reused"
    """The previous secret, long after: a copied cookie, or a browser that lost the new one."""
    WRONG = "wrong"


def standing(record: Record, secret: bytes, arrived: float) -> Standing:
    """Tell what the hash of a presented secret was worth when its request arrived.

    Secrets are compared in constant time. Until the grace is over, any other secret than the
    previous one is stale as well: it may be the one before that, and an answer with a new cookie
    would take the place of the fresh one in the browser. Stale reads and writes nothing.
    """
    if same_hash(record.secret, secret):
        return Standing.CURRENT
    is_previous = record.previous is not None and same_hash(record.previous, secret)
    if arrived >= record.grace_until:
        return Standing.REUSED if is_previous else Standing.WRONG
    return Standing.BORROWED if is_previous and record.previous_loads else Standing.STALE


def admits(
    facts: Facts, change: Write | Touch | Destroy, now: float, epoch_of: Callable[[str], int]
) -> bool:
    """Tell whether a change may be applied to a session that the store holds.

    A change of the current epoch counts while the session lives. One of the epoch just before
    counts within the grace as if it had come before the rotation, wholly or not at all: it is
    refused if it names a key that was written or dropped since, if the session was cleared
    since, or if it does more than put and drop.

    Args:
        facts: the stored session.
        change: what somebody asks for.
        now: the time, in seconds since the epoch.
        epoch_of: the epoch in which a key was last written or dropped, -1 if never.
    """
    if facts.expires <= now:
        return False
    if change.epoch is None or change.epoch == facts.epoch:
        return True
    if change.epoch != facts.epoch - 1 or now >= facts.grace_until:
        return False
    if isinstance(change, Destroy):
        return facts.previous_loads
    if isinstance(change, Touch) or change.clear or change.rotation or change.principal is not None:
        return False
    return facts.cleared < facts.epoch and all(epoch_of(key) < facts.epoch for key in change.items)


def create_is_possible(change: Create, existing: Facts | None, now: float) -> bool:
    """Tell whether a handle is free: nobody holds it, or who held it has expired."""
    return change.expires > now and (existing is None or existing.expires <= now)
