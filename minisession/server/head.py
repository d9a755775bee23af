"""Strict checks of a request's head that h11 leaves open, on the raw bytes before h11 sees them.

Owns: where a head ends, its size limits, its line structure, its framing headers, Host. It
refuses to know about targets (`target.py`), bodies and responses. Everything here is a plain
function of bytes; a fault raises `RequestRefused`.

Why before h11: h11's size limit depends on how TCP cuts the stream, it accepts bare LF and
obs-fold, and it prefers Transfer-Encoding where both framings are given. Each of them is a way to
make two parsers disagree about where a request ends (request smuggling).
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address

from .errors import RequestRefused
from .lines import count_lines

_REQUEST_LINE = re.compile(rb"[^ ]+ [^ ]+ HTTP/[0-9]\.[0-9]")

_CODINGS = re.compile(rb"\r\ntransfer-encoding:([^\r]*)")

# RFC 3986 section 3.2.2 without the comma: a comma in Host is a merged list of two Hosts. It may be
# empty as a whole, but there is no http without a host (RFC 9110 section 4.2.1): not ":80".
_NAME = rb"(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})+"
_HOST = re.compile(rb"(?:" + _NAME + rb"(?::(?P<port>[0-9]*))?)?")
_HOST_IPV6 = re.compile(rb"\[([0-9A-Fa-f:.]+)\](?::(?P<port>[0-9]*))?")


def find_head_end(buffer: bytearray, seen: int, max_line: int, max_head: int) -> int:
    """Return the length of the head at the start of `buffer`, 0 if it is not complete yet.

    `seen` bytes of the buffer were looked at before. The answer does not depend on the pieces in
    which the bytes arrived: of several faults, the one that comes first is found.

    Raises:
        RequestRefused: 414 or 431 for what is too long, 400 for what no further byte can repair.
    """
    line_end = buffer.find(b"\r\n", 0, max_line + 2)
    if line_end < 0 and len(buffer) >= max_line + 2:
        _check_begun(buffer[: max_line + 1])
        raise RequestRefused(414, f"request line longer than {max_line} bytes")
    end = buffer.find(b"\r\n\r\n", max(0, seen - 3), max_head)
    if end >= 0:
        return end + 4
    if line_end >= max(0, seen - 1):  # it has come to its end just now
        _check_request_line(buffer[:line_end])
    if len(buffer) >= max_head:
        _check_begun(buffer[: max_head - 1])
        raise RequestRefused(431, f"request head longer than {max_head} bytes")
    last_line_end = buffer.rfind(b"\r\n", 0, seen)
    _check_begun(buffer[last_line_end + 2 :] if last_line_end >= 0 else buffer)
    return 0


def _check_request_line(line: bytes | bytearray) -> None:
    """Check the form of a request line without waiting for the rest of the head.

    HTTP/0.9 has no version, and no rest: such a client waits for its answer.
    """
    if _REQUEST_LINE.fullmatch(line) is None:
        raise RequestRefused(400, "request line other than method, target and version")


def _check_begun(lines: bytearray) -> None:
    """Check lines of which the last may go on, and whose CR may still get its LF."""
    check_lines(bytes(lines).removesuffix(b"\r"))


def check_lines(lines: bytes) -> None:
    """Check that lines end with CRLF, hold no control characters and do not continue others.

    Raises:
        RequestRefused: 400. RFC 9112 section 2.2 (bare CR and LF) and section 5.2 (obs-fold).
    """
    if count_lines(lines) is None:  # h11 keeps most controls
        raise RequestRefused(400, "control character, bare CR or bare LF in the request's head")
    if lines[:1] in (b" ", b"\t") or b"\n " in lines or b"\n\t" in lines:
        raise RequestRefused(400, "line of the request's head that starts with whitespace")


def check_framing(head: bytes) -> None:
    """Check that at most one framing is given, and one that we know.

    RFC 9112 section 6.1 and 6.3: Transfer-Encoding together with Content-Length, or from an
    HTTP/1.0 client, ought to be handled as an error; a final coding other than chunked leaves the
    length unknown (400); a coding that we do not know is a 501, in what is a request at all.

    Raises:
        RequestRefused: 400 or 501.
    """
    lower = head.lower()
    if b"\r\ntransfer-encoding:" not in lower:
        return
    if b"\r\ncontent-length:" in lower:
        raise RequestRefused(400, "Content-Length together with Transfer-Encoding")
    if lower.partition(b"\r\n")[0].endswith(b" http/1.0"):
        raise RequestRefused(400, "Transfer-Encoding in HTTP/1.0")
    codings = [coding.strip(b" \t") for coding in b",".join(_CODINGS.findall(lower)).split(b",")]
    if codings[-1] != b"chunked" or b"chunked" in codings[:-1]:
        raise RequestRefused(400, "Transfer-Encoding that does not end with one chunked")
    if len(codings) > 1:
        _check_request_line(head.partition(b"\r\n")[0])
        raise RequestRefused(501, "Transfer-Encoding other than chunked")


@lru_cache(maxsize=256)  # a server has few names, and is asked for them again and again
def check_host(value: bytes) -> None:
    """Check a Host field value, or the authority of an absolute target, without user information.

    Raises:
        RequestRefused: 400, as RFC 9112 section 3.2 demands for an invalid Host.
    """
    match = _HOST_IPV6.fullmatch(value) if value[:1] == b"[" else _HOST.fullmatch(value)
    if match is None:
        raise RequestRefused(400, "invalid Host")
    if match.re is _HOST_IPV6:
        _check_ipv6(match[1])
    port = (match["port"] or b"").lstrip(b"0")
    if port and (len(port) > 5 or int(port) > 65535):
        raise RequestRefused(400, "port of Host greater than 65535")


def _check_ipv6(address: bytes) -> None:
    try:
        IPv6Address(address.decode("ascii"))
    except AddressValueError:
        raise RequestRefused(400, "invalid IPv6 address in Host") from None
