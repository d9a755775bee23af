"""From bytes to requests, without I/O: every accepted input in every way it can arrive."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from minisession.server.config import ServerConfig
from minisession.server.errors import RequestRefused
from minisession.server.requests import BodyPart, Request, RequestReader
from minisession.server.target import Target
from tests.server.cases import CASES, expand
from tests.server.kit import get, request, ways_to_arrive


def read(pieces: Iterable[bytes], **config: Any) -> list[object]:
    """Each request with its body when complete, then what was refused or is missing."""
    reader = RequestReader(ServerConfig(**config), "http")
    seen: list[object] = []
    body = bytearray()
    for piece in pieces:
        reader.feed(piece)
        try:
            read_on(reader, body, seen)
        except RequestRefused as refusal:
            return [*seen, refusal.status]
    return [*seen, "incomplete"] if reader.buffered or not reader.is_body_complete else seen


def read_on(reader: RequestReader, body: bytearray, seen: list[object]) -> None:
    """Read what there is, up to the last request of the connection."""
    while True:
        if len(seen) % 2 == 0:
            head = reader.next_request() if is_persistent(seen) else None
            if head is None:
                return
            seen.append(head)
        while not reader.is_body_complete:
            part = reader.next_part()
            if part is None:
                return
            body += part.data
        seen.append(bytes(body))
        body.clear()


def is_persistent(seen: list[object]) -> bool:
    return all(each.persists for each in seen if isinstance(each, Request))


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if "raw" in case and len(expand(case["raw"])) < 1000],
    ids=lambda case: str(case["id"]),
)
def test_every_case_is_read_alike_however_it_arrives(case: dict[str, Any]) -> None:
    raw = expand(case["raw"])
    whole = read([raw])

    for pieces in ways_to_arrive(raw):
        assert read(pieces) == whole


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if "raw" in case and set(case["expect"]["status"]) <= {400, 501}],
    ids=lambda case: str(case["id"]),
)
def test_every_case_that_must_be_refused_is_refused(case: dict[str, Any]) -> None:
    assert read([expand(case["raw"])])[-1] in case["expect"]["status"]


def test_a_request_is_taken_apart() -> None:
    raw = request("POST", "/a?b", "X-Y: \xff ", "Content-Length: 2", body=b"hi")

    assert read([raw]) == [
        Request(
            b"POST",
            Target("/a", b"/a", b"b", None),
            "1.1",
            [(b"host", b"a"), (b"x-y", b"\xc3\xbf"), (b"content-length", b"2")],
        ),
        b"hi",
    ]


def test_the_authority_of_an_absolute_target_replaces_the_host() -> None:
    head = read([b"GET http://b:1/ HTTP/1.1\r\nX: 1\r\nHost: a\r\n\r\n"])[0]

    assert isinstance(head, Request)
    assert head.headers == [(b"x", b"1"), (b"host", b"b:1")]


def test_an_absolute_target_of_http_1_0_stands_for_the_host_that_is_missing() -> None:
    head = read([b"GET http://b:1/ HTTP/1.0\r\nX: 1\r\n\r\n"])[0]

    assert isinstance(head, Request)
    assert head.headers == [(b"x", b"1"), (b"host", b"b:1")]


def test_a_higher_minor_version_is_held_to_the_rules_of_1_1() -> None:
    chunked = request("POST", "/", "Transfer-Encoding: chunked", body=b"1\r\na\r\n0\r\n\r\n")

    assert read([b"GET / HTTP/1.2\r\n\r\n"]) == [400]  # no Host
    assert read([chunked.replace(b"HTTP/1.1", b"HTTP/1.2")])[1:] == [b"a"]
    assert read([chunked.replace(b"HTTP/1.1", b"HTTP/2.0")]) == [505]


def test_empty_lines_before_a_request_are_skipped_up_to_four() -> None:
    assert len(read([b"\r\n" * 4 + get()])) == 2
    assert read([b"\r\n" * 5 + get()]) == [400]


def test_http_1_0_needs_no_host_and_later_minor_versions_are_1_1() -> None:
    older, newer = read([b"GET / HTTP/1.0\r\n\r\n"])[0], read([get().replace(b"1.1", b"1.9")])[0]

    assert isinstance(older, Request)
    assert isinstance(newer, Request)
    assert (older.http_version, newer.http_version) == ("1.0", "1.1")


def test_another_major_version_is_refused_with_505() -> None:
    assert read([get().replace(b"1.1", b"2.0")]) == [505]


@pytest.mark.parametrize(
    ("raw", "limit", "expected"),
    [
        (request("POST", "/", "Content-Length: 5", body=b"12345"), 5, b"12345"),
        (request("POST", "/", "Content-Length: 6"), 5, 413),
        (request("POST", "/", "Transfer-Encoding: chunked", body=b"6\r\n"), 5, 413),
        (request("POST", "/", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n3\r\n"), 5, 413),
    ],
)
def test_a_body_beyond_the_limit_is_refused(raw: bytes, limit: int, expected: object) -> None:
    assert read([raw], max_body=limit)[-1] == expected


def test_many_chunks_that_came_together_are_one_part() -> None:
    reader = RequestReader(ServerConfig(), "http")
    reader.feed(request("POST", "/", "Transfer-Encoding: chunked", body=b"1\r\na\r\n1\r\nb\r\n"))
    reader.next_request()

    assert reader.body_left == 0
    assert reader.next_part() == BodyPart(b"ab", more=True)
    assert reader.next_part() is None


def test_an_end_in_the_middle_of_a_body_is_refused() -> None:
    assert read([request("POST", "/", "Content-Length: 2", body=b"h"), b""])[-1] == 400


def test_a_reader_that_gives_up_forgets_what_it_holds() -> None:
    reader = RequestReader(ServerConfig(), "http")
    reader.feed(b"GET")
    assert reader.buffered == 3

    reader.drop_buffer()

    assert reader.buffered == 0
    assert "0 bytes buffered" in repr(reader)
