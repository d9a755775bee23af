"""Values to bytes and back, faithfully or not at all: what comes back is equal, of the same
type at every level, and in the same order; anything else is refused before it is stored.

The format is JSON in UTF-8 without white space. What JSON lacks is an object with one key that
starts with "~": {"~decimal":"1.10"}. A user's dict that would look like one gets one more "~"
in front of its key, so every other dict stands there as it is. A new kind of value gets a new
tag, which earlier versions refuse; what they have written is read for ever. No code is ever loaded
by name, as pickle would. This file knows neither sessions nor stores; how much room there is, is
the caller's to say.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Set
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from json.encoder import encode_basestring as _quote
from json.encoder import encode_basestring_ascii as _quote_ascii
from typing import Any, NoReturn
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from minisession.errors import StoreCorrupt, UnstorableValue

# Containers in containers. It bounds our recursion, ends cycles, and is far beyond what data in
# a session looks like; Python's own limit of 1000 frames is shared with the application.
MAX_DEPTH = 100

_Writer = Callable[[Any, int, int], str]

# The interpreter may limit int <-> str for long ints, but never below 640 digits
# (sys.set_int_max_str_digits). 2000 bits make 603 digits: up to there ints are plain JSON, longer
# ones hexadecimal.
_PLAIN_INT_BITS = 2000

_STORABLE = (
    "str, int, float, bool, None, list, dict, tuple, set, bytes, datetime, date, Decimal and UUID"
)


class TooLong(Exception):
    """A container that `encode` was given takes more room than there is."""


def encode(value: object, path: str, room: int = sys.maxsize) -> bytes:
    """Return the canonical bytes of `value`: equal values of equal types give equal bytes.

    (A dict keeps its order, so dicts in another order are other bytes.)

    Args:
        value: what to store; it is only read.
        path: how the caller writes it, for the message: `session["cart"]`.
        room: characters, after which it gives up on a container: nine lists that hold one another
            ten times make gigabytes of text, which must not be written to find out how many.

    Raises:
        TooLong: a container needs more than `room`.
        UnstorableValue: something in it would not come back as what it is; the message has the
            path to it, what is allowed and what to write instead, and never a text from it.
        RuntimeError: another thread changed the size of a container meanwhile; look again later.
    """
    try:
        return _WRITERS.get(type(value), _refuse)(value, 0, room).encode()
    except _Refusal as refusal:
        raise UnstorableValue(refusal.message(path)) from None


def decode(data: bytes) -> Any:
    """Return the value that `encode` made `data` from.

    Raises:
        StoreCorrupt: the data is damaged or foreign. What is accepted can be encoded again; only
            another spelling of the same JSON, such as white space inside, is not looked for.
    """
    try:
        text = data.decode()
        value, end = _parse(text)
    except (ValueError, RecursionError):
        # Their texts quote the data, so they are not passed on.
        raise StoreCorrupt("not a value in UTF-8 encoded JSON") from None
    if end != len(text):
        raise StoreCorrupt("more than one value")
    if b"\\u" in data or (len(data) > MAX_DEPTH and _has_many_containers(data)):
        _check_storable(value)
    return value


def decode_many(items: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the values of a whole record, in its order.

    Each value is parsed by itself: joining them into one array would save a seventh of the time,
    and take the broken values `1,2`, `"a` and `b"` for the three good ones `1`, `2` and `"a,b"`.

    Raises:
        StoreCorrupt: a value is damaged or foreign; the message names its key.
    """
    values = {}
    for key, data in items.items():
        try:
            values[key] = decode(data)
        except StoreCorrupt as error:
            raise StoreCorrupt(f"the value of {_step(key)} cannot be read: {error}") from None
    return values


# --- Writing. A writer takes a value of exactly its type, the number of containers around it and
# the room that is left. Containers alone count: what a leaf makes is as long as the leaf, but the
# same leaf can stand in many places.


class _Refusal(ValueError):
    """What cannot be stored, on its way up; every container that it passes adds its step."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self._reason = reason
        self._way: list[tuple[int, str]] = []

    def leave(self, container: object, step: str) -> None:
        """Note the step that leads from `container` to where the refusal came from."""
        self._way.append((id(container), step))

    def message(self, path: str) -> str:
        """Return where and why. A container that is passed twice contains itself."""
        containers = [container for container, _ in reversed(self._way)]
        steps = [step for _, step in reversed(self._way)]
        for i, container in enumerate(containers):
            if container in containers[i + 1 :]:
                return f"{path}{_join(steps[:i])}: {_CIRCLE}"
        return f"{path}{_join(steps)}: {self._reason}"


_CIRCLE = "what contains itself cannot be stored; store each part once, by name"


def _join(steps: list[str]) -> str:
    return "".join(steps[:10]) + ("[...]" if len(steps) > 10 else "")


def _write_none(_value: None, _depth: int, _room: int) -> str:
    return "null"


def _write_bool(value: bool, _depth: int, _room: int) -> str:
    return "true" if value else "false"


def _write_int(value: int, _depth: int, _room: int) -> str:
    if value.bit_length() <= _PLAIN_INT_BITS:
        return repr(value)
    return f'{{"~int":"{hex(value)}"}}'


def _write_float(value: float, _depth: int, _room: int) -> str:
    if math.isfinite(value):
        return repr(value)
    raise _not_finite(f"float('{value}')", "float")


def _write_str(value: str, _depth: int, _room: int) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Refusal(
                "a str with a lone surrogate cannot be stored, it is not Unicode text; "
                "write text.encode('utf-8', 'replace').decode(), or store the bytes it came from"
            ) from None
    return _quote(value)


def _write_list(value: list[object] | tuple[object, ...], depth: int, room: int) -> str:
    _check_depth(depth)
    items = tuple(value)  # at one moment: another thread may be moving what is in it
    parts: list[str] = []
    try:
        for item in items:
            part = _WRITERS.get(type(item), _refuse)(item, depth + 1, room)
            parts.append(part)
            room -= len(part)
            if room < 0:
                raise TooLong
    except _Refusal as refusal:
        refusal.leave(value, f"[{len(parts)}]")
        raise
    if len(items) != len(value):
        raise RuntimeError("list changed size during iteration")
    return f"[{','.join(parts)}]"


def _write_tuple(value: tuple[object, ...], depth: int, room: int) -> str:
    return f'{{"~tuple":{_write_list(value, depth, room)}}}'


def _write_set(value: set[object], depth: int, room: int) -> str:
    _check_depth(depth)
    parts: list[str] = []
    try:
        for item in value:
            part = _WRITERS.get(type(item), _refuse)(item, depth + 1, room)
            parts.append(part)
            room -= len(part)
            if room < 0:
                raise TooLong
    except _Refusal as refusal:
        refusal.leave(value, "{...}")
        raise
    # By code point, which is the order of the bytes in UTF-8.
    return f'{{"~set":[{",".join(sorted(parts))}]}}'


def _write_dict(value: dict[object, object], depth: int, room: int) -> str:
    _check_depth(depth)
    parts: list[str] = []
    key: object = None
    try:
        for key, item in value.items():
            # The two most frequent cases are written out: they save a third of the time.
            name = _quote(key) if type(key) is str and key.isascii() else _write_key(key)
            part = f"{name}:{_WRITERS.get(type(item), _refuse)(item, depth + 1, room)}"
            parts.append(part)
            room -= len(part)
            if room < 0:
                raise TooLong
    except _Refusal as refusal:
        refusal.leave(value, _step(key))
        raise
    if len(parts) == 1 and parts[0].startswith('"~'):
        return f'{{"~{parts[0][1:]}}}'
    return f"{{{','.join(parts)}}}"


def _write_key(key: object) -> str:
    if type(key) is str:
        return _write_str(key, 0, 0)
    raise _Refusal(
        f"a key of type {_name(type(key))} cannot be stored; keys are str: write str(key)"
    )


def _check_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise _Refusal(
            f"more than {MAX_DEPTH} containers in one another cannot be stored; store them flat, "
            "for example in a dict by name"
        )


def _step(key: object) -> str:
    """Return the subscript of a key, safe to print: escaped, and cut where it gets long."""
    if type(key) is not str:
        return f"[<{_name(type(key))}>]"
    return f"[{_quote_ascii(key if len(key) <= 40 else key[:40] + '...')}]"


# --- Refusing.

# The first that fits counts, so the particular stands before the general.
_ADVICE: tuple[tuple[type, str], ...] = (
    (Enum, "value.value"),
    (str, "str(value)"),
    (int, "int(value)"),
    (float, "float(value)"),
    (complex, "(value.real, value.imag)"),
    (Decimal, "Decimal(value)"),
    (time, "value.isoformat()"),
    (timedelta, "value.total_seconds()"),
    (datetime, "datetime.fromisoformat(value.isoformat())"),
    (date, "date.fromisoformat(value.isoformat())"),
    (UUID, "UUID(int=value.int)"),
    (bytes, "bytes(value)"),
    (bytearray, "bytes(value)"),
    (memoryview, "bytes(value)"),
    (tuple, "tuple(value)"),
    (Set, "set(value)"),
    (Mapping, "dict(value)"),
    (Iterable, "list(value)"),
)


def _refuse(value: object, _depth: int, _room: int) -> NoReturn:
    kind = type(value)
    raise _Refusal(
        f"a value of type {_name(kind)} cannot be stored; write {_advice(kind)} "
        f"(what comes back as it was is exactly {_STORABLE})"
    )


def _advice(kind: type) -> str:
    for base, advice in _ADVICE:
        if issubclass(kind, base):
            return advice
    if dataclasses.is_dataclass(kind):
        return "dataclasses.asdict(value)"
    return "a dict of what you need to know of it"


def _not_finite(shown: str, kind: str) -> _Refusal:
    return _Refusal(
        f"{shown} cannot be stored, only finite numbers can; "
        f"write None for no number, or str(value) and {kind}(...) around what comes back"
    )


def _name(kind: type) -> str:
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


# --- Tagged scalars. Each is a text: one function writes it, one reads it.


def _decimal_text(value: Decimal) -> str:
    if not value.is_finite():
        # Without the digits that a NaN may carry.
        shown = str(value) if value.is_infinite() else "NaN"
        raise _not_finite(f"Decimal('{shown}')", "Decimal")
    return str(value).upper()  # the caller's decimal context may write "1e+3"


def _bytes_text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _read_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _read_int(text: str) -> int:
    return int(text, 16)


def _datetime_text(value: datetime) -> str:
    """Write `2024-10-27T02:30:00`, an offset, `;fold=1`, and the zone in brackets as RFC 9557.

    The offset stands only for a fixed `timezone`, with its name, if it has one of its own, as
    `[=name]`. A `ZoneInfo` is kept by its key alone, `[Europe/Paris]`: its rules may change.
    """
    fold = ";fold=1" if value.fold else ""
    zone = value.tzinfo
    if zone is None or type(zone) is timezone:
        return f"{value.isoformat()}{fold}{_own_name(zone)}"
    if type(zone) is ZoneInfo and _is_found_by_key(zone, value):
        return f"{value.replace(tzinfo=None).isoformat()}{fold}[{zone.key}]"
    raise _Refusal(
        f"a datetime with a tzinfo of type {_name(type(zone))} cannot be stored, unless it is a "
        "timezone, or a ZoneInfo that its key finds again; write value.astimezone(timezone.utc)"
    )


def _own_name(zone: timezone | None) -> str:
    if zone is None:
        return ""
    name = zone.tzname(None)
    return "" if name == timezone(zone.utcoffset(None)).tzname(None) else f"[={name}]"


def _is_found_by_key(zone: ZoneInfo, moment: datetime) -> bool:
    """Say whether the zone's key gives the same time again: `ZoneInfo.from_file` takes any key."""
    try:
        return moment.replace(tzinfo=ZoneInfo(zone.key)) == moment
    except (ValueError, TypeError, LookupError, OSError):
        return False


def _read_datetime(text: str) -> datetime:
    head, bracket, zone = text.partition("[")
    iso, _, fold = head.partition(";")
    clock = max(iso.rfind("+"), iso.rfind("-", len("2026-01-31")))
    wall = iso if clock < 0 else iso[:clock]
    value = datetime.fromisoformat(wall).replace(fold=1 if fold else 0)
    if clock >= 0:
        name = (zone[1:-1],) if bracket else ()
        return value.replace(tzinfo=timezone(_read_offset(iso[clock:]), *name))
    return value.replace(tzinfo=_zone(zone[:-1])) if bracket else value


def _read_offset(text: str) -> timedelta:
    """Read `+02:00`. `datetime.fromisoformat` takes an offset below one second for UTC."""
    size = time.fromisoformat(text[1:])
    offset = timedelta(0, size.second, size.microsecond, 0, size.minute, size.hour)
    return -offset if text[0] == "-" else offset


def _zone(key: str) -> ZoneInfo:
    try:
        return ZoneInfo(key)
    except ZoneInfoNotFoundError:
        raise StoreCorrupt(
            "a datetime in a time zone that is unknown here; if it was stored elsewhere, "
            "this machine needs the same time zone data: pip install tzdata"
        ) from None


# --- Reading.

# tag: its two functions. Reading is checked by writing again, so a text has one spelling.
_SCALARS: dict[str, tuple[Callable[[Any], str], Callable[[str], object]]] = {
    "~int": (hex, _read_int),
    "~decimal": (_decimal_text, Decimal),
    "~bytes": (_bytes_text, _read_bytes),
    "~uuid": (str, UUID),
    "~date": (date.isoformat, date.fromisoformat),
    "~datetime": (_datetime_text, _read_datetime),
}


def _scalar_writer(tag: str) -> _Writer:
    text_of = _SCALARS[tag][0]

    def write(value: object, _depth: int, _room: int) -> str:
        return f'{{"{tag}":{_write_str(text_of(value), 0, 0)}}}'

    return write


_WRITERS: dict[type, _Writer] = {
    type(None): _write_none,
    bool: _write_bool,
    int: _write_int,
    float: _write_float,
    str: _write_str,
    list: _write_list,
    tuple: _write_tuple,
    set: _write_set,
    dict: _write_dict,
    Decimal: _scalar_writer("~decimal"),
    bytes: _scalar_writer("~bytes"),
    UUID: _scalar_writer("~uuid"),
    date: _scalar_writer("~date"),
    datetime: _scalar_writer("~datetime"),
}


def _read_object(pairs: list[tuple[str, Any]]) -> object:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise StoreCorrupt("a key stands twice in one dict")
    if len(pairs) == 1 and pairs[0][0][:1] == "~":
        return _read_tagged(*pairs[0])
    return found


def _read_tagged(tag: str, payload: Any) -> object:
    if tag[:2] == "~~":
        return {tag[1:]: payload}
    if tag in _SCALARS and type(payload) is str:
        return _read_scalar(tag, payload)
    if tag == "~tuple" and type(payload) is list:
        return tuple(payload)
    if tag == "~set" and type(payload) is list:
        return _read_set(payload)
    raise StoreCorrupt(
        "an unknown tag: written by a newer minisession, and then this one must be upgraded (pip"
        " install --upgrade minisession), or not by minisession at all"
    )


def _read_scalar(tag: str, text: str) -> object:
    write, read = _SCALARS[tag]
    try:
        value = read(text)
        if write(value) == text:
            return value
    except (ValueError, LookupError, ArithmeticError, OSError):
        pass  # the same as a value that is written in another way
    raise StoreCorrupt(f"what is tagged {tag} cannot be read as one")


def _read_set(items: list[Any]) -> set[object]:
    try:
        found = set(items)
    except TypeError:
        raise StoreCorrupt("a set of what no set can hold") from None
    if len(found) != len(items):
        raise StoreCorrupt("an element stands twice in one set")
    return found


def _read_float(text: str) -> float:
    value = float(text)
    if math.isfinite(value):
        return value
    raise StoreCorrupt("a number beyond the range of float")


def _read_constant(_name: str) -> NoReturn:
    raise StoreCorrupt("NaN or Infinity, which are not JSON")


_parse = json.JSONDecoder(
    object_pairs_hook=_read_object, parse_float=_read_float, parse_constant=_read_constant
).raw_decode


def _has_many_containers(data: bytes) -> bool:
    return data.count(b"[") + data.count(b"{") > MAX_DEPTH


def _check_storable(value: object) -> None:
    r"""Refuse what can be read but not written again.

    JSON has only two such things: nesting beyond our limit, which needs as many brackets, and
    lone surrogates, for which UTF-8 has no bytes but JSON has an escape, `\ud800`.
    """
    try:
        encode(value, "")
    except UnstorableValue:
        raise StoreCorrupt("nested beyond the limit, or text that is not Unicode") from None
