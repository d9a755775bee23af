"""Lines of a head: each ends with CRLF and holds no control character."""

from __future__ import annotations

import pytest

from minisession.server.lines import count_lines

CONTROLS = [*range(0x09), 0x0A, 0x0B, 0x0C, 0x0D, *range(0x0E, 0x20), 0x7F]


@pytest.mark.parametrize(("data", "count"), [(b"", 0), (b"a", 0), (b"a\r\n", 1), (b"a\r\n\r\n", 2)])
def test_the_ends_of_lines_are_counted(data: bytes, count: int) -> None:
    assert count_lines(data) == count


@pytest.mark.parametrize("octet", CONTROLS)
@pytest.mark.parametrize("around", [b"a%bb\r\n", b"%b\r\n", b"a\r\n%b", b"a\r\n%b\r\n", b"a%b"])
def test_a_bare_control_is_found_wherever_it_stands(around: bytes, octet: int) -> None:
    assert count_lines(around % bytes([octet])) is None


def test_all_other_octets_are_allowed() -> None:
    allowed = bytes(each for each in range(256) if each not in CONTROLS)

    assert count_lines(allowed + b"\r\n") == 1


@pytest.mark.parametrize("data", [b"\n\r", b"a\n\rb\r\n", b"\r\r\n", b"\r\n\n", b"\x00\n"])
def test_a_cr_and_an_lf_that_are_no_pair_do_not_make_one(data: bytes) -> None:
    assert count_lines(data) is None
