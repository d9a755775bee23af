"""A response's head, from ASGI's pairs to bytes; the whole table of what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from minisession.server.fields import Head, write_head


def test_names_and_order_stay_as_they_were_given() -> None:
    head = write_head(200, [(b"X-B", b"1"), (b"a", b"2"), (b"X-B", b"\xff \t3")])

    assert head == Head(
        b"HTTP/1.1 200 OK\r\nX-B: 1\r\na: 2\r\nX-B: \xff \t3\r\n", None, False, False
    )


@pytest.mark.parametrize(
    ("status", "line"), [(404, b"HTTP/1.1 404 Not Found"), (599, b"HTTP/1.1 599 ")]
)
def test_a_status_is_named_if_it_has_a_name(status: int, line: bytes) -> None:
    assert write_head(status, []).lines == line + b"\r\n"


@pytest.mark.parametrize(
    ("fields", "length", "written"),
    [
        ([(b"Content-Length", b"5")], 5, b"Content-Length: 5\r\n"),
        ([(b"content-length", b"5"), (b"Content-Length", b"5")], 5, b"content-length: 5\r\n"),
        ([(b"content-length", b"5"), (b"content-length", b"05")], 5, b"content-length: 5\r\n"),
        ([(b"transfer-encoding", b"gzip, chunked")], None, b""),
    ],
)
def test_what_frames_the_body_is_noted(
    fields: list[tuple[bytes, bytes]], length: int | None, written: bytes
) -> None:
    head = write_head(200, fields)

    assert head.length == length
    assert head.lines == b"HTTP/1.1 200 OK\r\n" + written


def test_a_204_has_no_length() -> None:
    assert write_head(204, [(b"content-length", b"0")]) == Head(
        b"HTTP/1.1 204 No Content\r\n", None, False, False
    )


def test_a_date_of_the_apps_own_is_noted() -> None:
    assert write_head(200, [(b"Date", b"now")]).has_date


@pytest.mark.parametrize(
    ("value", "closes", "written"),
    [
        (b"close", True, b""),
        (b"Keep-Alive", False, b""),
        (b"Upgrade, Close", True, b"connection: upgrade\r\n"),
        (b"upgrade", False, b"connection: upgrade\r\n"),
        (b", ,", False, b""),
    ],
)
def test_whether_a_connection_persists_is_the_servers_to_say(
    value: bytes, closes: bool, written: bytes
) -> None:
    head = write_head(426, [(b"connection", value)])

    assert head.closes is closes
    assert head.lines == b"HTTP/1.1 426 Upgrade Required\r\n" + written


@pytest.mark.parametrize("octet", [*range(9), *range(10, 32), 127])
@pytest.mark.parametrize("place", [b"a%b", b"%ba", b"a%ba"])
def test_a_control_character_in_a_value_is_refused(octet: int, place: bytes) -> None:
    with pytest.raises(ValueError, match=r"^$"):
        write_head(200, [(b"a", place % bytes([octet]))])


@pytest.mark.parametrize(
    "field",
    [
        (b"a", b" b"),
        (b"a", b"b\t"),
        (b"", b"b"),
        (b"a b", b"c"),
        (b"a:", b"b"),
        (b"a\r\nb", b"c"),
        (b"\xe4", b"b"),
        (b"content-length", b""),
        (b"content-length", b"+5"),
        (b"content-length", b"5, 5"),
        (b"content-length", b"1" * 19),
    ],
)
def test_what_is_no_field_is_refused(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match=r"^$"):
        write_head(200, [field])


def test_two_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^$"):
        write_head(200, [(b"content-length", b"5"), (b"content-length", b"6")])


@pytest.mark.parametrize("field", [("a", b"b"), (b"a", "b"), (b"a", 1), (b"a", None), (1, b"b")])
def test_what_is_not_bytes_is_refused(field: Any) -> None:
    with pytest.raises((TypeError, AttributeError)):
        write_head(200, [field])
