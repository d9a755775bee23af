"""A response's status line and fields: from ASGI's pairs to bytes, strictly.

Owns what an app may say in the head of a response, and takes note of what it says there about
framing and persistence, which are the server's business. It refuses to know about requests and
bodies. h11 would write heads too, but takes longer for that than for reading a request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

REASONS = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}

_STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in REASONS.items()
}

# RFC 9110 section 5.6.2.
_TOKEN = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")

# RFC 9110 section 5.5: the octets of a field value; CR, LF and NUL are dangerous, other controls
# invalid.
_VISIBLE = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])

# Eighteen digits hold every length that could ever be meant.
_LENGTH = re.compile(rb"[0-9]{1,18}")

_NOTED = frozenset([b"connection", b"content-length", b"date", b"transfer-encoding"])


class Head(NamedTuple):
    """The app's part of a head, with a CRLF after each line, and what it means for the rest."""

    lines: bytes
    length: int | None
    has_date: bool
    closes: bool


def write_head(status: int, fields: Iterable[tuple[bytes, bytes]]) -> Head:
    """Write the status line and the fields, in the order and with the names that were given.

    Transfer-Encoding is left out, because framing is the server's (ASGI HTTP spec, Response
    Start), and so is a Content-Length that RFC 9110 section 8.6 forbids (with 204).

    Raises:
        TypeError: a name or a value is no bytes.
        ValueError: a name is no token, a value holds CR, LF, NUL, other controls or outer spaces,
            or Content-Length is no number, or two different ones.
    """
    pieces = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
    length: int | None = None
    has_date = closes = False
    for name, given in fields:
        value = given
        lower = _lower(name)
        if value != value.strip():
            raise ValueError
        if lower in _NOTED:
            if lower == b"content-length":
                is_repeated, length = length is not None, _length(value, length)
                if is_repeated or status == 204:
                    continue
            elif lower == b"date":
                has_date = True
            elif lower == b"transfer-encoding":
                continue
            else:
                options = _options(value)
                closes = closes or b"close" in options
                value = b", ".join(option for option in options if option not in _PERSISTENCE)
                if not value:
                    continue
        pieces += (name, b": ", value, b"\r\n")
    lines = b"".join(pieces)
    if lines.translate(None, _VISIBLE) != b"\r\n" * (len(pieces) // 4 + 1):
        raise ValueError
    return Head(lines, length, has_date, closes)


@lru_cache(maxsize=512)  # apps have few names, and send them again and again
def _lower(name: bytes) -> bytes:
    if _TOKEN.fullmatch(name) is None:
        raise ValueError
    return name.lower()


def _length(value: bytes, earlier: int | None) -> int:
    if _LENGTH.fullmatch(value) is None:
        raise ValueError
    length = int(value)
    if earlier not in (None, length):
        raise ValueError
    return length


_PERSISTENCE = (b"close", b"keep-alive")


def _options(value: bytes) -> list[bytes]:
    return [option for part in value.lower().split(b",") if (option := part.strip())]
