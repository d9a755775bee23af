"""The frozen values that sessions and stores exchange.

A *change* is handed to a store: "to this session, if it is alive and this epoch still counts,
apply these operations". A *record* is what a store answers to a load. An *outcome* is what it
answers to a change. Times are seconds since the epoch (`time.time()`), secrets are SHA-256
digests, values are encoded: nothing here could be used to log in (P10).

Creating and changing are different values because they fail differently: a `Write` never brings
a session to life.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from minisession.errors import Conflict, SessionTooLarge, StoreError


@dataclass(frozen=True, slots=True)
class Rotation:
    """A new secret for the same handle; raises the epoch by one.

    Until `grace_until`, a change of the epoch before may still count (see `rules.admits`). With
    `previous_loads` the replaced secret goes on loading the session until then.
    """

    secret: bytes = field(repr=False)
    grace_until: float
    previous_loads: bool = False


@dataclass(frozen=True, slots=True)
class Expect:
    """The precondition of a compare-and-set: `key` holds exactly `value`, or nothing if None."""

    key: str
    value: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Create:
    """Bring a session to life in epoch 0. `Gone` if its handle is taken."""

    handle: str
    secret: bytes = field(repr=False)
    items: Mapping[str, bytes] = field(repr=False)
    created: float
    expires: float
    cookie_until: float
    max_size: int
    principal: str | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """Operations on a living session, applied as one: clear, then puts and drops, then the rest.

    In `items`, None drops the key. `principal` and `cookie_until` are left as they are if None;
    an empty `principal` removes it. A write that a rotation only lets in by grace changes items
    and nothing else.
    """

    handle: str
    epoch: int
    expires: float
    max_size: int
    items: Mapping[str, bytes | None] = field(default_factory=dict, repr=False)
    clear: bool = False
    rotation: Rotation | None = None
    expect: Expect | None = None
    cookie_until: float | None = None
    principal: str | None = None


@dataclass(frozen=True, slots=True)
class Touch:
    """Move the end of a living session to `expires`, never to an earlier time."""

    handle: str
    epoch: int
    expires: float


@dataclass(frozen=True, slots=True)
class Destroy:
    """End a session for good. With `epoch` None, whatever its epoch (revocation)."""

    handle: str
    epoch: int | None


Change = Create | Write | Touch | Destroy


@dataclass(frozen=True, slots=True)
class Committed:
    """The change is stored. `epoch` is the session's epoch now: the rotations it has seen."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Gone:
    """The change was not applied: the session has ended, or (`replaced`) its id was replaced."""

    replaced: bool = False


Outcome = Committed | Gone | Conflict | SessionTooLarge | StoreError


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules must know of a stored session to judge a change.

    `cleared` is the epoch in which the session was last cleared, -1 if it never was.
    """

    epoch: int
    expires: float
    grace_until: float
    previous_loads: bool
    cleared: int


@dataclass(frozen=True, slots=True)
class Record:
    """One living session, as a store holds it. `previous` is the secret replaced last."""

    handle: str
    secret: bytes = field(repr=False)
    epoch: int
    items: Mapping[str, bytes] = field(repr=False)
    created: float
    expires: float
    cookie_until: float
    previous: bytes | None = field(default=None, repr=False)
    previous_loads: bool = False
    grace_until: float = 0.0
    principal: str | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """A living session without its data, for lists of sessions."""

    handle: str
    created: float
    expires: float
    principal: str | None = None


def size_of(key: str, data: bytes) -> int:
    """Count the bytes that one stored value weighs against `max_size`: its key's and its own."""
    return len(key.encode()) + len(data)
