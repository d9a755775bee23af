"""A response's status line and fields: from ASGI's pairs to bytes, strictly.

Owns what an app may say in the head of a response, and takes note of what it says there about
framing and persistence, which are the server's business. It refuses to know about requests and
bodies. h11 would write heads too, but takes longer for that than for reading a request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus

from .lines import count_lines

REASONS = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}

_STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in REASONS.items()
}

# RFC 9110 section 5.6.2.
_TOKEN = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")

# Eighteen digits hold every length that could ever be meant.
_LENGTH = re.compile(rb"[0-9]{1,18}")

_PERSISTENCE = (b"close", b"keep-alive")

_NOTED = frozenset([b"connection", b"content-length", b"date", b"transfer-encoding"])


@dataclass(slots=True)
class Head:
    """The app's part of a head, with a CRLF after each line, and what it means for the rest."""

    lines: bytes = b""
    length: int | None = None
    has_date: bool = False
    closes: bool = False


def write_head(status: int, fields: Iterable[tuple[bytes, bytes]]) -> Head:
    """Write the status line and the fields, in the order and with the names that were given.

    Transfer-Encoding is left out, because framing is the server's (ASGI HTTP spec, Response
    Start); so is Content-Length with a 204, which has none (RFC 9110 section 8.6), and with a
    205, which has no content (section 15.3.6), and of Connection what says whether it persists.

    Raises:
        TypeError: a name or a value is no bytes.
        ValueError: a name is no token, a value holds CR, LF, NUL, other controls or outer spaces,
            or Content-Length is no number, or two different ones.
    """
    head = Head()
    pieces = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
    for name, value in fields:
        lower = _lower(name)
        if value != value.strip():
            raise ValueError
        written = _note(head, status, lower, value) if lower in _NOTED else value
        if written is not None:
            pieces += (name, b": ", written, b"\r\n")
    head.lines = b"".join(pieces)
    if count_lines(head.lines) != len(pieces) // 4 + 1:
        raise ValueError
    return head


@lru_cache(maxsize=512)  # apps have few names, and send them again and again
def _lower(name: bytes) -> bytes:
    if _TOKEN.fullmatch(name) is None:
        raise ValueError
    return name.lower()


def _note(head: Head, status: int, name: bytes, value: bytes) -> bytes | None:
    """Take note of a field that means something to a server; return what is to be written of it."""
    if name == b"date":
        head.has_date = True
        return value
    if name == b"content-length" and status not in (204, 205):
        return _note_length(head, value)
    if name == b"connection":
        options = [each for part in value.lower().split(b",") if (each := part.strip())]
        head.closes = head.closes or b"close" in options
        return b", ".join(each for each in options if each not in _PERSISTENCE) or None
    return None


def _note_length(head: Head, value: bytes) -> bytes | None:
    if _LENGTH.fullmatch(value) is None:
        raise ValueError
    earlier, head.length = head.length, int(value)
    if earlier is None:
        return value
    if earlier != head.length:
        raise ValueError
    return None  # once is enough
