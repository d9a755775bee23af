"""The chunked coding, strictly and within bounds: RFC 9112 section 7.1.

Owns the bytes between the head and the end of the trailers. h11 would read them too, but accepts
any bytes as extension, unbounded; so they are decoded here and handed to h11 in canonical form.
Extensions are dropped, as section 7.1.1 asks of whoever does not know them; so are trailers,
which section 7.1.2 allows and which could otherwise pass for headers.
"""

from __future__ import annotations

import enum
import re

from .errors import RequestRefused

MAX_SIZE_LINE = 4 * 1024  # one chunk size with its extensions
MAX_EXTENSIONS = 16 * 1024  # all extensions of one body: "ought to be limited", section 7.1.1
MAX_TRAILERS = 16 * 1024

_TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION = rb"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (_TOKEN, _TOKEN, _QUOTED)
# 16 digits hold every size that could ever be meant; more are an attempt to overflow somebody.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:%b)*)" % _EXTENSION)
_TRAILER = re.compile(_TOKEN + rb":[\t -~\x80-\xff]*")


class _State(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILERS = enum.auto()
    COMPLETE = enum.auto()


class ChunkedDecoder:
    """Decodes one body of at most `max_size` bytes.

    What it accepts and how it refuses does not depend on the pieces in which the bytes arrive.

    Mutable: the state, what is left of the chunk, the sizes so far, and what was dropped.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._state = _State.SIZE
        self._left = self._size = 0
        self._extensions = 0
        self._trailers = 0

    def __repr__(self) -> str:
        return f"<ChunkedDecoder {self._state.name}, {self._left} bytes of the chunk left>"

    @property
    def is_complete(self) -> bool:
        """Whether the body and its trailers have ended."""
        return self._state is _State.COMPLETE

    def decode(self, buffer: bytearray) -> bytes:
        """Take from the front of `buffer` what belongs to the body; return the content of it.

        Raises:
            RequestRefused: 400 for what is not chunked coding, 413 as soon as a chunk announces too
                much, 431 for too long trailers.
        """
        parts: list[bytes] = []
        position = 0
        while self._state is not _State.COMPLETE:
            advanced = self._step(buffer, position, parts)
            if advanced == position:
                break
            position = advanced
        del buffer[:position]
        return b"".join(parts)

    def _step(self, buffer: bytearray, position: int, parts: list[bytes]) -> int:
        if self._state is _State.DATA:
            return self._read_data(buffer, position, parts)
        if self._state is _State.DATA_END:
            return self._read_data_end(buffer, position)
        if self._state is _State.SIZE:
            return self._read_size(buffer, position)
        return self._read_trailer(buffer, position)

    def _read_size(self, buffer: bytearray, position: int) -> int:
        line = _maybe_line(buffer, position, MAX_SIZE_LINE, 400)
        if line is None:
            return position
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise RequestRefused(400, "invalid chunk size or chunk extension")
        self._extensions += len(match[2])
        if self._extensions > MAX_EXTENSIONS:
            raise RequestRefused(400, f"chunk extensions longer than {MAX_EXTENSIONS} bytes")
        self._left = int(match[1], 16)
        self._size += self._left
        if self._size > self._max_size:
            raise RequestRefused(413, f"body longer than {self._max_size} bytes")
        self._state = _State.DATA if self._left else _State.TRAILERS
        return position + len(line) + 2

    def _read_data(self, buffer: bytearray, position: int, parts: list[bytes]) -> int:
        data = bytes(buffer[position : position + self._left])
        parts.append(data)
        self._left -= len(data)
        if not self._left:
            self._state = _State.DATA_END
        return position + len(data)

    def _read_data_end(self, buffer: bytearray, position: int) -> int:
        end = buffer[position : position + 2]
        if not b"\r\n".startswith(end):
            raise RequestRefused(400, "chunk that is longer than its size")
        if len(end) < 2:
            return position
        self._state = _State.SIZE
        return position + 2

    def _read_trailer(self, buffer: bytearray, position: int) -> int:
        line = _maybe_line(buffer, position, MAX_TRAILERS - self._trailers, 431)
        if line is None:
            return position
        self._trailers += len(line) + 2
        if not line:
            self._state = _State.COMPLETE
        elif _TRAILER.fullmatch(line) is None:
            raise RequestRefused(400, "invalid trailer")
        return position + len(line) + 2


def _maybe_line(buffer: bytearray, position: int, limit: int, status: int) -> bytes | None:
    """The line at `position` without its CRLF, None while it is incomplete."""
    end = buffer.find(b"\r\n", position, position + limit + 2)
    if end >= 0:
        return bytes(buffer[position:end])
    begun = bytes(buffer[position : position + limit + 1])
    if b"\n" in begun or b"\r" in begun[:-1]:
        raise RequestRefused(400, "bare CR or LF in a chunked body")
    if len(buffer) - position >= limit + 2:
        raise RequestRefused(status, f"line in a chunked body longer than {limit} bytes")
    return None
