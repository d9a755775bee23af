"""Changes, records and outcomes as the server keeps and sends them: `change.lua` from our side.

It owns the order of the script's arguments and the layout of the hash. It decides nothing: what a
change does is said in the script.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import itemgetter

from minisession.abc import Change, Committed, Create, Gone, Outcome, Record, Summary, Touch, Write
from minisession.errors import SaveOutcomeUnknown, StoreCorrupt, StoreUnavailable
from minisession.stores._row import conflict, too_large

VERSION = b"1"
HASH_LENGTH = 32  # bytes of a SHA-256
SUMMARY = (b"v", b"x", b"b", b"u")
"""The fields that `summary_of` needs."""
HEAD = (*SUMMARY, b"e", b"s", b"p", b"l", b"g", b"c", b"n", b"t", b"q", b"k", b"i")
"""All fields but the items."""

_ANY_VERSION = re.compile(rb"[1-9][0-9]{0,4}")

_INDEX_LIVES = 3
"""An index outlives what is left of a session's life by so much. It is written anew when less than
one and a half are left, so a session that is used is certain to stay in it."""


def damaged(handle: str, what: str) -> StoreCorrupt:
    """Return the error that says which session cannot be read, and how to end it."""
    return StoreCorrupt(
        f"session {handle}: {what}; it was left as it is."
        " To be rid of it: await manager.revoke(handle)"
    )


def newer(handle: str, version: str) -> StoreCorrupt:
    """Return the error that says that this release is too old to read a session."""
    return StoreCorrupt(
        f"session {handle}: it is of format {version}, and this release reads {VERSION.decode()};"
        " it was left as it is. Upgrade minisession here to the release that wrote it, or a later"
        " one"
    )


def no_index(key: bytes) -> StoreCorrupt:
    """Return the error for a principal's index that is something else."""
    return StoreCorrupt(
        f"the list of a principal's sessions under the key {key.decode(errors='replace')} is no"
        " sorted set. Remove that key: each session is listed anew at its next login or renewal"
    )


def unlisted(handle: str, what: str) -> StoreUnavailable:
    """Return the error for a change whose principal's index could not be written."""
    return StoreUnavailable(
        f"session {handle}: the list of its principal's sessions cannot be written ({what});"
        " nothing was stored"
    )


def index_until(expires: float, now: float) -> float:
    """Return until when the index of its principal is to list a session."""
    return now + _INDEX_LIVES * max(0.0, expires - now)


def arguments(change: Change, now: float) -> list[bytes]:
    """Return what the script is told of a change."""
    match change:
        case Create():
            return _arguments_of_create(change, now)
        case Write():
            return _arguments_of_write(change, now)
        case Touch():
            return [b"T", time_of(now), b"%d" % change.epoch, time_of(change.expires)]
        case _:
            epoch = b"" if change.epoch is None else b"%d" % change.epoch
            return [b"D", time_of(now), epoch]


def mark(principal: bytes, until: float, now: float) -> list[bytes]:
    """Return what the script is told when the index of this principal was written anew."""
    return [b"I", time_of(now), b"", time_of(until), principal]


def _arguments_of_create(change: Create, now: float) -> list[bytes]:
    return [
        *(b"C", time_of(now), b"0", time_of(change.expires), b"%d" % change.max_size),
        *(change.secret, time_of(change.created), b"", b"", b"", b"", b""),
        *(time_of(change.cookie_until), *_principal(change.principal or None, change.expires, now)),
        *_items(change.items),
    ]


def _arguments_of_write(change: Write, now: float) -> list[bytes]:
    rotation, expect = change.rotation, change.expect
    rotates = [b"", b"", b""]
    if rotation is not None:
        loads = b"1" if rotation.previous_loads else b"0"
        rotates = [rotation.secret, time_of(rotation.grace_until), loads]
    expects = [b"", b"", b""]
    if expect is not None:
        expects = [b"0" if expect.value is None else b"1", expect.key.encode(), expect.value or b""]
    return [
        *(
            b"W",
            time_of(now),
            b"%d" % change.epoch,
            time_of(change.expires),
            b"%d" % change.max_size,
        ),
        *(*rotates, b"1" if change.clear else b"0", *expects),
        b"" if change.cookie_until is None else time_of(change.cookie_until),
        *_principal(change.principal, change.expires, now),
        *_items(change.items),
    ]


def _principal(principal: str | None, expires: float, now: float) -> tuple[bytes, bytes]:
    if principal is None:
        return b"", b""
    if not principal:
        return b"-", b""
    return b"+" + principal.encode(), time_of(index_until(expires, now))


def _items(items: Mapping[str, bytes | None]) -> list[bytes]:
    told = []
    for key, data in items.items():
        told += [key.encode(), b"0" if data is None else b"1", data or b""]
    return told


def time_of(seconds: float) -> bytes:
    """Return a time so that it comes back as exactly the same number."""
    return repr(float(seconds)).encode()


def outcome_of(change: Change, reply: object) -> tuple[Outcome, bytes | None]:
    """Return what a reply of the script means, and the principal whose index is due."""
    match reply:
        case [1, int(epoch), bytes() | None as due]:
            return Committed(epoch), due
        case _:
            return _not_committed(change, reply), None


def _not_committed(change: Change, reply: object) -> Outcome:
    match reply:
        case [2, int(replaced)]:
            return Gone(replaced=bool(replaced))
        case [3, bytes() | None as current] if isinstance(change, Write):
            return conflict(change, current)
        case [4, int(size)] if isinstance(change, Create | Write):
            return too_large(change.handle, size, change.max_size)
        case _:
            return _failed(change.handle, reply)


def _failed(handle: str, reply: object) -> Outcome:
    match reply:
        case [5, bytes(what)]:
            return damaged(handle, what.decode(errors="replace"))
        case [6, bytes(what)]:
            return unlisted(handle, what.decode(errors="replace"))
        case [7, bytes(version)]:
            return newer(handle, version.decode(errors="replace"))
        case _:
            message = f"session {handle}: the server gave an answer that nobody understands"
            return SaveOutcomeUnknown(message)


def record_of(handle: str, fields: Mapping[bytes, bytes], now: float) -> Record | None:
    """Return the living session that a hash holds, None if it is empty or has expired.

    Raises:
        StoreCorrupt: it holds what it cannot hold.
    """
    if not fields:
        return None
    _require_version(handle, fields)
    try:
        _require_counters(fields)
        record = _record(handle, fields)
    except (KeyError, ValueError):
        raise _damaged_fields(handle) from None
    return record if record.expires > now else None


def _require_version(handle: str, fields: Mapping[bytes, bytes]) -> None:
    version = fields.get(b"v", b"")
    if version == VERSION:
        return
    if _ANY_VERSION.fullmatch(version):
        raise newer(handle, version.decode())
    raise _damaged_fields(handle)


def _damaged_fields(handle: str) -> StoreCorrupt:
    return damaged(handle, "the stored fields are damaged")


def _require_counters(fields: Mapping[bytes, bytes]) -> None:
    """Refuse what the script would refuse, though no record shows it."""
    for counter in (fields[b"n"], fields[b"q"], fields.get(b"t", b"0")):
        _whole(counter)
    for number in (fields.get(b"c", b"-1"), fields.get(b"i", b"0")):
        _real(number)


def _record(handle: str, fields: Mapping[bytes, bytes]) -> Record:
    previous = fields.get(b"p")
    principal = fields.get(b"u")
    return Record(
        handle=handle,
        secret=_hash(fields[b"s"]),
        epoch=_whole(fields[b"e"]),
        items=_live_items(fields),
        created=_real(fields[b"b"]),
        expires=_real(fields[b"x"]),
        cookie_until=_real(fields[b"k"]),
        previous=None if previous is None else _hash(previous),
        previous_loads=fields.get(b"l") == b"1",
        grace_until=_real(fields.get(b"g", b"0")),
        principal=None if principal is None else principal.decode(),
    )


def _live_items(fields: Mapping[bytes, bytes]) -> dict[str, bytes]:
    """Return the items in the order in which they came; a large hash has lost it."""
    found = []
    for field, value in fields.items():
        if field[:1] == b"=":
            stamp, live, data = value.partition(b":")
            epoch, _, place = stamp.partition(b".")
            if not (epoch.isdigit() and place.isdigit()):
                raise ValueError
            found.append((int(place), field[1:].decode(), data if live else None))
    found.sort(key=_place)
    return {key: data for _, key, data in found if data is not None}


_place = itemgetter(0)


def _hash(digest: bytes) -> bytes:
    if len(digest) != HASH_LENGTH:
        raise ValueError
    return digest


def _whole(text: bytes) -> int:
    if not text.isdigit():
        raise ValueError
    return int(text)


def _real(text: bytes) -> float:
    number = float(text)
    if number != number:  # noqa: PLR0124  # it is not a number
        raise ValueError
    return number


def summary_of(handle: str, fields: Mapping[bytes, bytes], now: float) -> Summary | None:
    """Return the summary that the fields `SUMMARY` make; None if it is empty or has expired.

    Raises:
        StoreCorrupt: they hold what they cannot hold.
    """
    if not fields:
        return None
    _require_version(handle, fields)
    principal = fields.get(b"u")
    try:
        summary = Summary(
            handle,
            _real(fields[b"b"]),
            _real(fields[b"x"]),
            None if principal is None else principal.decode(),
        )
    except (KeyError, ValueError):
        raise _damaged_fields(handle) from None
    return summary if summary.expires > now else None
