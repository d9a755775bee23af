"""The chunked coding: what is accepted is decoded alike however it arrives; the rest is refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from minisession.server.chunked import MAX_TRAILERS, ChunkedDecoder
from minisession.server.errors import RequestRefused
from tests.server.kit import ways_to_arrive


def decode(pieces: Sequence[bytes], max_size: int = 1 << 20) -> tuple[bytes, bytes, bool]:
    """The content, what was left in the buffer, and whether the body was complete."""
    decoder, buffer, content = ChunkedDecoder(max_size), bytearray(), b""
    for piece in pieces:
        buffer += piece
        content += decoder.decode(buffer)
    return content, bytes(buffer), decoder.is_complete


@pytest.mark.parametrize(
    ("coded", "content"),
    [
        (b"0\r\n\r\n", b""),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"3\r\nabc\r\nA\r\n0123456789\r\n000\r\n\r\n", b"abc0123456789"),
        (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"0000000000000001\r\nx\r\n0\r\n\r\n", b"x"),
        (b'1;a\r\nx\r\n0;b=c;d="e;\\"f"\r\n\r\n', b"x"),
        (b"1 ; a = b\r\nx\r\n0\r\n\r\n", b"x"),
        (b"1\r\n\r\r\n0\r\n\r\n", b"\r"),
        (b"1\r\nx\r\n0\r\nA: 1\r\nB:\xff\r\n\r\n", b"x"),
    ],
)
def test_a_body_is_decoded_alike_however_it_arrives(coded: bytes, content: bytes) -> None:
    for pieces in ways_to_arrive(coded):
        assert decode(pieces) == (content, b"", True)


def test_what_follows_the_body_stays_in_the_buffer() -> None:
    assert decode([b"1\r\nx\r\n0\r\n\r\nGET /"]) == (b"x", b"GET /", True)


@pytest.mark.parametrize(
    "coded", [b"", b"1", b"1\r", b"1\r\n", b"1\r\nx\r", b"0\r\n", b"0\r\nA: 1"]
)
def test_an_incomplete_body_waits_for_more(coded: bytes) -> None:
    assert not decode([coded])[2]


@pytest.mark.parametrize(
    ("coded", "status"),
    [
        (b"G\r\n", 400),
        (b"\r\n", 400),
        (b"0x5\r\n", 400),
        (b"+5\r\n", 400),
        (b"-5\r\n", 400),
        (b"5 \r\n", 400),
        (b" 5\r\n", 400),
        (b"5;\r\n", 400),
        (b"5;[x]\r\n", 400),
        (b'5;a="b\r\n', 400),
        (b"1" * 17 + b"\r\n", 400),
        (b"1" * 5000, 400),
        (b"1\nx", 400),
        (b"1\rx", 400),
        (b"1\r\nxy", 400),
        (b"1\r\nx\n", 400),
        (b"1\r\nx\rx", 400),
        (b"0\r\n\n", 400),
        (b"0\r\nA: 1\n", 400),
        (b"0\r\n A: 1\r\n", 400),
        (b"0\r\nA: 1\r\n b\r\n", 400),
        (b"0\r\nA: \0\r\n", 400),
        (b"0\r\nno colon\r\n", 400),
        (b"0\r\nA: " + b"a" * 20000, 431),
        (b"0\r\n" + b"A: 1\r\n" * 3000, 431),
        (b"1;" + b"a" * 1000 + b"\r\nx\r\n", None),
        ((b"1;" + b"a" * 1000 + b"\r\nx\r\n") * 17, 400),
    ],
)
def test_a_body_outside_the_grammar_or_the_bounds_is_refused(
    coded: bytes, status: int | None
) -> None:
    ways = ways_to_arrive(coded) if len(coded) < 100 else [[coded]]
    for pieces in ways:
        assert refusal_of(pieces) == status


@pytest.mark.parametrize(
    ("coded", "status"),
    [
        (b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", None),
        (b"6\r\nabcdef\r\n0\r\n\r\n", 413),
        (b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n", 413),
        (b"6\r\nabcdefgh", 413),
        (b"5\r\nabcdefgh", 400),
    ],
)
def test_a_body_is_refused_as_soon_as_a_chunk_announces_too_much(
    coded: bytes, status: int | None
) -> None:
    for pieces in ways_to_arrive(coded):
        assert refusal_of(pieces, max_size=5) == status


@pytest.mark.parametrize("start", [b"0\r\nA: 1\n", b"0\r\nA: 1\rx"])
def test_of_several_faults_the_first_is_found(start: bytes) -> None:
    too_long = start + b"a" * MAX_TRAILERS

    assert refusal_of([too_long]) == refusal_of([start, too_long[len(start) :]]) == 400


def refusal_of(pieces: Sequence[bytes], max_size: int = 1 << 20) -> int | None:
    try:
        decode(pieces, max_size)
    except RequestRefused as refusal:
        return refusal.status
    return None


def test_the_decoder_shows_where_it_is() -> None:
    decoder = ChunkedDecoder(max_size=100)

    decoder.decode(bytearray(b"5\r\nab"))

    assert repr(decoder) == "<ChunkedDecoder DATA, 3 bytes of the chunk left>"
