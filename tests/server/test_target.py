"""The request target: which forms are taken, and what the app gets to see."""

from __future__ import annotations

import pytest

from minisession.server.errors import RequestRefused
from minisession.server.target import Target, parse_target


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/", Target("/", b"/", b"", None)),
        (b"/a?b=c?d", Target("/a", b"/a", b"b=c?d", None)),
        (b"//a//b/../c", Target("//a//b/../c", b"//a//b/../c", b"", None)),
        (b"/a%20b/%C3%A9?x=%20", Target("/a b/é", b"/a%20b/%C3%A9", b"x=%20", None)),
        (b"/%2e%2F", Target("/./", b"/%2e%2F", b"", None)),
        (b"http://h:1/p?q", Target("/p", b"/p", b"q", b"h:1")),
        (b"HTTP://h", Target("/", b"/", b"", b"h")),
        (b"http://h?q", Target("/", b"/", b"q", b"h")),
        (b"http://[::1]/", Target("/", b"/", b"", b"[::1]")),
    ],
)
def test_a_target_is_taken_apart(target: bytes, expected: Target) -> None:
    assert parse_target(b"GET", target, "http") == expected


@pytest.mark.parametrize("target", [b"*", b"http://h"])
def test_options_may_mean_the_server_as_a_whole(target: bytes) -> None:
    assert parse_target(b"OPTIONS", target, "http").path == "*"


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "*", 400),
        ("GET", "index.html", 400),
        ("GET", "\\evil", 400),
        ("GET", "/a#b", 400),
        ("GET", "a:80", 400),
        ("GET", "https://h/", 400),
        ("GET", "ftp://h/", 400),
        ("GET", "http:///p", 400),
        ("GET", "http://:80/p", 400),
        ("GET", "http://u@h/", 400),
        ("GET", "http://h:x/", 400),
        ("GET", "/%ff", 400),
        ("GET", "/a%00b", 400),
        ("CONNECT", "a:80", 501),
        ("TRACE", "/", 501),
    ],
)
def test_a_target_that_is_not_allowed_is_refused(method: str, target: str, status: int) -> None:
    with pytest.raises(RequestRefused) as refusal:
        parse_target(method.encode(), target.encode(), "http")

    assert refusal.value.status == status


@pytest.mark.parametrize("target", ["http://h/p", "https://h/p", "HTTPS://h/p"])
def test_over_tls_both_schemes_are_allowed(target: str) -> None:
    assert parse_target(b"GET", target.encode(), "https").path == "/p"
