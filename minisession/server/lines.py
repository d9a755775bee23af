"""Lines of a head, of a request or a response: whether each ends with CRLF and is clean inside.

RFC 9110 section 5.5: CR, LF and NUL are dangerous in a field, other controls invalid; tab, space
and all octets from 0x80 on are allowed.
"""

from __future__ import annotations

# What may not stand in a line becomes a CR, so that one count finds all of it.
_CONTROLS = bytes([*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F])
_TO_CR = bytes.maketrans(_CONTROLS, b"\r" * len(_CONTROLS))


def count_lines(data: bytes) -> int | None:
    """Return how many CRLF there are; None if there is a bare CR or LF, or another control."""
    count = data.count(b"\r\n")
    if data.count(b"\n") == count == data.translate(_TO_CR).count(b"\r"):
        return count
    return None
