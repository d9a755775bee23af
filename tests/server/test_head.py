"""The strict checks of a request's head, on bytes."""

from __future__ import annotations

import pytest

from minisession.server.errors import RequestRefused
from minisession.server.head import check_framing, check_host, check_lines, find_head_end
from tests.server.kit import ways_to_arrive

GET = b"GET / HTTP/1.1\r\n"
MAX_LINE, MAX_HEAD = 40, 100


def feed(pieces: list[bytes]) -> int:
    """What `find_head_end` says in the end, or minus the status of its refusal."""
    buffer, seen = bytearray(), 0
    for piece in pieces:
        buffer += piece
        try:
            end = find_head_end(buffer, seen, MAX_LINE, MAX_HEAD)
        except RequestRefused as refusal:
            return -refusal.status
        if end:
            return end
        seen = len(buffer)
    return 0


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (GET + b"\r\n", 18),
        (GET + b"A: 1\r\n\r\n", 24),
        (GET + b"A: 1\r\n", 0),
        (b"GET /" + b"a" * 26 + b" HTTP/1.1\r\n\r\n", 44),
        (b"GET /" + b"a" * 27 + b" HTTP/1.1\r\n\r\n", -414),
        (b"a" * 41, 0),
        (b"a" * 42, -414),
        (GET + b"A: " + b"a" * 77 + b"\r\n\r\n", 100),
        (GET + b"A: " + b"a" * 78 + b"\r\n\r\n", -431),
        (GET + b"A: " + b"a" * 81, -431),
        (b"a" * 39 + b"\n" + b"a" * 9, -400),  # the fault comes before the end of what is allowed
        (b"a" * 41 + b"\n" + b"a" * 9, -414),
        (GET + b"A: " + b"a" * 79 + b"\0" + b"a" * 9, -400),
        (GET + b"A: " + b"a" * 81 + b"\0" + b"a" * 9, -431),
        (b"GET /\r\n", -400),  # HTTP/0.9, which has no rest
        (b"GET /\r\nA: " + b"a" * 90, -400),
        (b"GET / b HTTP/1.1\r\n", -400),
        (b"GET / HTTP/2.0\r\n", 0),
    ],
)
def test_the_end_and_the_limits_do_not_depend_on_how_bytes_arrive(
    head: bytes, expected: int
) -> None:
    for pieces in ways_to_arrive(head):
        assert feed(list(pieces)) == expected


def test_what_follows_a_head_does_not_count_for_its_limits() -> None:
    assert feed([GET + b"\r\n" + b"x" * 1000]) == 18


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\nHost",
        GET + b"A: 1\n",
        GET + b"\n",
        GET + b"A: a\rb",
        GET + b"A: a\0",
        GET + b"A: a\x01",
        GET + b"A: a\x7f",
        GET + b" A: 1",
        GET + b"\tA: 1",
        GET + b"A: 1\r\n b",
        b"\x16\x03\x01",
    ],
)
def test_what_no_further_byte_can_repair_is_refused_at_once(head: bytes) -> None:
    for pieces in ways_to_arrive(head):
        assert feed(list(pieces)) == -400


@pytest.mark.parametrize("lines", [b"A: \x80\xff\tb\r\n\r\n", b"", b"A\r\nB\r\n"])
def test_lines_of_visible_octets_are_accepted(lines: bytes) -> None:
    check_lines(lines)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"Transfer-Encoding: chunked", None),
        (b"tRANSFER-eNCODING:CHUNKED\t ", None),
        (b"Content-Length: 5", None),
        (b"X: transfer-encoding: gzip", None),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
        (b"content-length: 0\r\ntransfer-encoding: chunked", 400),
        (b"Transfer-Encoding: gzip", 400),
        (b"Transfer-Encoding: chunked, gzip", 400),
        (b"Transfer-Encoding: chunked, chunked", 400),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 400),
        (b"Transfer-Encoding:", 400),
        (b"Transfer-Encoding: gzip, chunked", 501),
        (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 501),
    ],
)
def test_one_known_framing_is_accepted(fields: bytes, status: int | None) -> None:
    assert status_of(check_framing, GET + fields + b"\r\n\r\n") == status


def test_transfer_encoding_is_refused_from_http_1_0() -> None:
    head = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"

    assert status_of(check_framing, head) == 400


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a",
        "a:",
        "a:80",
        "a.b-c_d~e",
        "192.0.2.1:65535",
        "[::1]",
        "[::1]:8080",
        "a%20b",
        "a:080",
    ],
)
def test_a_valid_host_is_accepted(host: str) -> None:
    assert status_of(check_host, host.encode()) is None


@pytest.mark.parametrize(
    "host",
    [
        *(
            "a b",
            "a@b",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "a,b",
            "<a>",
            "a%2",
            "a:b",
            "a:1:2",
            "a:65536",
        ),
        *(
            "a:" + "9" * 5000,
            "[::1",
            "[::1]x",
            "[]",
            "[1]",
            "[::1%eth0]",
            "[v1.x]",
            "é",
            "::1",
            ":80",
            ":",
        ),
    ],
)
def test_an_invalid_host_is_refused(host: str) -> None:
    assert status_of(check_host, host.encode("latin-1")) == 400


def status_of(check: object, value: bytes) -> int | None:
    try:
        check(value)  # type: ignore[operator]
    except RequestRefused as refusal:
        return refusal.status
    return None
