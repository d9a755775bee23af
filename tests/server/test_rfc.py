"""The clauses of RFC 9112 and RFC 9110, one after the other: what is sent, and what comes back.

These are raw cases beside the acceptance cases, on a whole connection in memory. After each comes
one more request, so that it shows whether the connection goes on and at which octet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.server.kit import http_app, read_body, reply
from tests.server.memory import serve_in_memory

pytestmark = pytest.mark.anyio

ON = "200 200"  # the request is answered, and so is the next one
LAST = "200 close"
BAD = "400 close"
UNKNOWN = "501 close"

_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n((?:[^\r]+\r\n)*)\r\n")


@http_app
async def app(scope: Any, receive: Any, send: Any) -> None:
    if await read_body(receive) is not None:
        await reply(send, b"")


def head(line: bytes, *fields: bytes, host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join(filter(None, [line, host, *fields])) + b"\r\n\r\n"


NEXT = head(b"GET /next HTTP/1.1")


async def summary(raw: bytes) -> str:
    """The status of each response in order, and whether the last one says close."""
    written = await serve_in_memory(app, [raw])
    found = [(match[1].decode(), match[2]) for match in _HEAD.finditer(written)]
    closes = any(b"\r\nconnection: close\r\n" in b"\r\n" + fields for _, fields in found)
    return " ".join([*(status for status, _ in found), *["close"] * closes])


async def check(expected: Mapping[bytes, str], raw_of: Mapping[bytes, bytes]) -> None:
    assert {case: await summary(raw_of[case] + NEXT) for case in expected} == expected


async def check_fields(expected: Mapping[bytes, str], line: bytes = b"GET / HTTP/1.1") -> None:
    await check(expected, {case: head(line, case) for case in expected})


def in_one(value: str, cases: Sequence[bytes]) -> dict[bytes, str]:
    return dict.fromkeys(cases, value)


async def test_the_request_line() -> None:  # RFC 9112 section 3
    good = [b"GET /\\x HTTP/1.1", b'GET /"{}|^` HTTP/1.1', b"get / HTTP/1.1", b"0 / HTTP/1.1"]
    good += [b"!#$%&'*+-.^_`|~aZ9 / HTTP/1.1", b"A" * 8000 + b" / HTTP/1.1", b"trace / HTTP/1.1"]
    bad = [b"GET / HTTP/1.1\t", b"GET\t/ HTTP/1.1", b"GET / HTTP/1.1 x", b"GET  HTTP/1.1"]
    bad += [b"GET /\t HTTP/1.1", b"GET /\x7f HTTP/1.1", b"GET /\xff HTTP/1.1", b"G/T / HTTP/1.1"]
    bad += [b"G:T / HTTP/1.1", b"G,T / HTTP/1.1", b"\xefGET / HTTP/1.1", b"/ HTTP/1.1", b"GET /"]

    expected = in_one(ON, good) | in_one(BAD, bad)
    expected[b"A" * 20_000 + b" / HTTP/1.1"] = "414 close"
    await check(expected, {line: head(line) for line in expected})


async def test_the_version() -> None:  # RFC 9112 section 2.3, RFC 9110 section 2.5
    bad = [b"HTTP/1", b"HTTP/2", b"HTTP/.1", b"HTTP/1.1.1", b"HTTP/11.1", b"http/1.1", b"Http/1.1"]
    bad += [b"HTTPS/1.1", b"HTTP/1.x", b"HTTP/-1.1", b"HTTP/+1.1", b"HTTP/\xb9.1", b"HTTP/1.0x"]

    expected = {b"HTTP/1.0": LAST, b"HTTP/1.9": ON} | in_one(BAD, bad)
    expected |= in_one("505 close", [b"HTTP/0.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9"])
    await check(expected, {version: head(b"GET / " + version) for version in expected})


async def test_a_line_without_a_version_is_refused_though_nothing_follows() -> None:
    assert await summary(b"GET /\r\n") == BAD
    assert await summary(b"GET / x HTTP/1.1\r\nHost: a\r\n") == BAD


async def test_what_stands_before_a_request() -> None:  # RFC 9112 section 2.2
    expected = in_one(ON, [b"\r\n", b"\r\n\r\n\r\n\r\n"])
    expected |= in_one(
        BAD, [b"\n", b"\r", b" ", b"\t\r\n", b"\r\n ", b"\r\r\n", b"\0", b"\r\n" * 5]
    )
    await check(expected, {before: before + head(b"GET / HTTP/1.1") for before in expected})

    body = head(b"POST / HTTP/1.1", b"Content-Length: 2") + b"hi"
    between = {b"\r\n": ON, b"\n": "200 400 close", b" ": "200 400 close", b"hi": ON}
    await check(between, {each: body + each for each in between})


async def test_the_target() -> None:  # RFC 9112 section 3.2, RFC 9110 section 4.2
    good = [
        b"//a/b",
        b"///",
        b"/../x",
        b"/%2e%2e/",
        b"/%",
        b"/%4",
        b"/%zz",
        b"/a;b=c",
        b"/?",
        b"/[]",
    ]
    good += [b"/x?a?b", b"/x?%00", b"/x?%ff", b"/%c3%a9", b"http://a?x", b"HTTP://b:80", b"/%0d%0a"]
    good += [b"http://a:/x", b"http://a_b/", b"http://a./", b"http://%61/", b"http://[::1]:1/"]
    bad = [
        b"/%00",
        b"/%ff",
        b"/%c0%af",
        b"/%ed%a0%80",
        b"/#",
        b"/x?#",
        b"http://a/x#f",
        b"?x",
        b"*",
    ]
    bad += [b"http://u@a/", b"http://u:p@a/", b"http://@a/", b"http:///x", b"http://:80/", b"a:80"]
    bad += [b"http:/x", b"http:x", b"http:", b"http://", b"https://a/", b"ftp://a/", b"ws://a/"]
    bad += [b"http://a:65536/", b"http://a:x/", b"http://a,b/", b"http://a\\b/", b"http://[::1/"]
    bad += [b"http://[]/", b"http://[::1%25lo]/", b"http://a/\xff", b"*x", b"/x\x00", b"a", b"-"]

    expected = in_one(ON, good) | in_one(BAD, bad)
    lines = {target: head(b"GET %b HTTP/1.1" % target) for target in expected}
    await check(expected, lines)


async def test_methods_that_have_targets_of_their_own() -> None:  # RFC 9110 sections 9.3.6 to 9.3.8
    expected = in_one(ON, [b"OPTIONS *", b"OPTIONS /", b"OPTIONS http://a", b"OPTIONS http://a?x"])
    expected |= in_one(BAD, [b"OPTIONS *x", b"OPTIONS a", b"HEAD *", b"POST *"])
    expected |= in_one(UNKNOWN, [b"CONNECT a:80", b"CONNECT /", b"TRACE /", b"TRACE http://a/"])
    await check(expected, {line: head(line + b" HTTP/1.1") for line in expected})


async def test_the_host() -> None:  # RFC 9112 section 3.2, RFC 9110 section 7.2
    good = [b"A.EXAMPLE", b"a:", b"a:0", b"a:65535", b"a:0080", b"[::1]", b"[::ffff:1.2.3.4]:80"]
    good += [b"a_b", b"a.", b"1.2.3.4", b"%61", b"xn--a", b"a;b", b"", b" \t", b"a" * 255]
    bad = [b"a:65536", b"a:-1", b"a:+80", b"a:8 0", b"a b", b"a\tb", b"a/b", b"a#b", b"http://a"]
    bad += [b"::1", b"[::1]x", b"[]", b"[1.2.3.4]", b"[::1%25lo]", b"[::1%lo]", b"[:::]", b":80"]
    bad += [b"u@a", b"%zz", b"%", b"\xe4", b"a,a", b"a:1:2", b"a\\", b'"a"', b"[::1]:65536"]

    expected = in_one(ON, good) | in_one(BAD, bad)
    fields = {host: head(b"GET / HTTP/1.1", host=b"Host: " + host) for host in expected}
    await check(expected, fields)


async def test_a_host_that_is_missing_or_there_twice() -> None:  # RFC 9112 section 3.2
    expected = {
        head(b"GET / HTTP/1.1", host=b""): BAD,
        head(b"GET http://a/ HTTP/1.1", host=b""): BAD,
        head(b"GET http://a/ HTTP/1.1", host=b"Host: a b"): BAD,
        head(b"GET / HTTP/1.1", b"host: a"): BAD,
        head(b"GET / HTTP/1.1", b"X: 1", b"HOST: b"): BAD,
        head(b"GET / HTTP/1.0", b"host: a"): BAD,
        head(b"GET / HTTP/1.0", host=b"Host: a b"): BAD,
        head(b"GET / HTTP/1.0", host=b""): LAST,
        head(b"GET http://b/ HTTP/1.1", host=b"Host:"): ON,
    }
    await check(expected, {raw: raw for raw in expected})


async def test_fields() -> None:  # RFC 9112 section 5, RFC 9110 section 5.5
    good = [
        b"X:",
        b"X:a",
        b"X: \t a \t",
        b"X:: a",
        b'X: "',
        b"X: \x80\xff",
        b"!#$%&'*+-.^_`|~aZ9: x",
    ]
    good += [b"X: " + b"a" * 60_000, b"X" * 60_000 + b": a"]
    bad = [
        b"X",
        b":",
        b": a",
        b"X : a",
        b"X\t: a",
        b" X: a",
        b"X(: a",
        b"X@: a",
        b'X": a',
        b"X/: a",
    ]
    bad += [b"X\xff: a", b"\xa0X: a", b"X: a\r\n b", b"X: a\r\n\t", b"X: a\nY: b", b"X: a\rY: b"]
    bad += [b"X: a\r", b"X: \x00", b"X: \x01", b"X: \x0b", b"X: \x0c", b"X: \x1b", b"X: \x7f"]

    await check_fields(in_one(ON, good) | in_one(BAD, bad) | {b"X: " + b"a" * 66_000: "431 close"})


async def test_the_content_length() -> None:  # RFC 9112 section 6.3, RFC 9110 section 8.6
    good = [b"5", b" \t5 \t", b"05", b"5,5", b"5, 5", b"5 , 5"]
    bad = [b"+5", b"-5", b"5 5", b"5,", b",5", b"5,6", b"5, 05", b"", b" ", b"5.", b"0x5", b"\xb2"]
    bad += [b"5\x00", b"5;", b"1e1", b"0" * 30 + b"5", b"9" * 30, b"9" * 5000]

    expected = in_one(ON, good) | in_one(BAD, bad)
    expected |= in_one("413 close", [b"67108865", b"9" * 18, b"9" * 20])
    post = b"POST / HTTP/1.1"
    raw = {each: head(post, b"Content-Length:" + each) + b"hello" for each in expected}
    await check(expected, raw)


async def test_the_transfer_coding() -> None:  # RFC 9112 sections 6.1 and 7
    good = [b"chunked", b"Chunked", b"CHUNKED ", b"\tchunked\t"]
    bad = [b"chunked, chunked", b"gzip, chunked, chunked", b"chunked, gzip", b"identity", b"gzip"]
    bad += [b"", b"chunked,", b"chunked;q=1", b"chunked ;x", b"x-chunked", b"chunke", b'"chunked"']
    bad += [b"chunked\x0b", b"chun ked", b"trailers", b"chunked\xff", b"chunked, identity"]
    unknown = [b"gzip, chunked", b"gzip,chunked", b"x , chunked", b"identity, chunked", b",chunked"]

    expected = in_one(ON, good) | in_one(BAD, bad) | in_one(UNKNOWN, unknown)
    await check(
        expected,
        {
            each: head(b"POST / HTTP/1.1", b"Transfer-Encoding:" + each) + b"2\r\nhi\r\n0\r\n\r\n"
            for each in expected
        },
    )


async def test_the_transfer_coding_and_other_fields() -> None:  # RFC 9112 section 6.1 and 6.3
    chunked, end = b"Transfer-Encoding: chunked", b"0\r\n\r\n"
    expected = {
        head(b"POST / HTTP/1.1", chunked, chunked) + end: BAD,
        head(b"POST / HTTP/1.1", b"Transfer-Encoding: gzip", chunked) + end: UNKNOWN,
        head(b"POST /", b"Transfer-Encoding: gzip", chunked) + end: BAD,
        head(b"POST / HTTP/1.1", chunked, b"Content-Length: 5") + end: BAD,
        head(b"POST / HTTP/1.1", b"content-length:", chunked) + end: BAD,
        head(b"POST / HTTP/1.0", chunked) + end: BAD,
        head(b"POST / HTTP/1.0", b"Content-Length: 5", chunked) + end: BAD,
        head(b"POST / HTTP/1.2", chunked) + end: ON,
        head(b"GET / HTTP/1.1", chunked) + end: ON,
        head(b"HEAD / HTTP/1.1", b"Content-Length: 5") + b"hello": ON,
        head(b"POST / HTTP/1.1", b"Transfer_Encoding: chunked"): ON,
        head(b"POST / HTTP/1.1", b"TE: trailers, chunked", b"Connection: TE"): ON,
        head(b"POST / HTTP/1.1", b"Transfer-Encoding : chunked") + end: BAD,
    }
    await check(expected, {raw: raw for raw in expected})


async def test_chunks() -> None:  # RFC 9112 section 7.1
    good = [
        b"05",
        b"0" * 15 + b"5",
        b"5;a",
        b"5;a=b",
        b"5 ; a = b",
        b'5;a="x;\\"\t,y"',
        b'5;a="\xff"',
    ]
    bad = [
        b"0" * 16 + b"5",
        b"0x5",
        b"5 ",
        b" 5",
        b"5\t",
        b"+5",
        b"-5",
        b"5.0",
        b"5h",
        b"5,",
        b"5:",
    ]
    bad += [b"", b"5;", b"5;a=", b"5;=b", b"5;a b", b"5;a=b ", b"5;a=b;", b'5;a="', b'5;a="b"c']
    bad += [
        b"5;a=\x00",
        b'5;a="\r\n"',
        b"5;a='b c'",
        b"5;\xff",
        b"5\r",
        b"5\n5",
        b"\r\n5",
        b"6",
        b"4",
    ]

    expected = in_one(ON, good) | in_one(BAD, bad)
    expected |= in_one("413 close", [b"f" * 16, b"4000001"])
    start = head(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked")
    await check(expected, {size: start + size + b"\r\nhello\r\n0\r\n\r\n" for size in expected})


async def test_trailers() -> None:  # RFC 9112 section 7.1.2, RFC 9110 section 6.5
    good = [
        b"X: 1",
        b"X:",
        b"X: \xff",
        b"Content-Length: 9",
        b"Transfer-Encoding: chunked",
        b"Host: b",
    ]
    good += [b"Connection: close", b"X: a\r\nX: b", b"X: " + b"a" * 16_000]
    bad = [b"X", b": x", b"X : 1", b" X: 1", b"X: a\r\n b", b"X: a\nY: b", b"X: \x00", b"X\xff: 1"]

    expected = in_one(ON, good) | in_one(BAD, bad)
    expected |= in_one("431 close", [b"X: " + b"a" * 17_000, b"X: 1\r\n" * 3000 + b"X: 1"])
    start = head(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked") + b"0\r\n"
    await check(expected, {lines: start + lines + b"\r\n\r\n" for lines in expected})


async def test_the_connection() -> None:  # RFC 9112 section 9.3 and 9.6, RFC 9110 section 7.6.1
    last = [
        b"close",
        b"Close",
        b"keep-alive, close",
        b"close, keep-alive",
        b"x,close ,",
        b"\tCLOSE",
    ]
    goes_on = [b"keep-alive", b"closed", b'"close"', b"close;q=1", b"", b",", b"x close", b"te"]

    expected = in_one(LAST, last) | in_one(ON, goes_on)
    line = b"GET / HTTP/1.1"
    await check(expected, {each: head(line, b"Connection: " + each) for each in expected})
    two = [b"Connection: x\r\nConnection: close", b"Connection: close\r\nConnection: keep-alive"]
    await check_fields(in_one(LAST, two) | {b"Proxy-Connection: close": ON})
    await check_fields(in_one(LAST, [b"Connection: keep-alive", b"X: 1"]), b"GET / HTTP/1.0")


async def test_upgrades_are_ignored() -> None:  # RFC 9110 section 7.8
    upgrade = b"Connection: upgrade\r\nUpgrade: "
    await check_fields(in_one(ON, [upgrade + b"foo/9", upgrade + b"TLS/1.0", upgrade + b"h2c, x"]))
    await check_fields({upgrade + b"websocket\r\nConnection: close": LAST})


@pytest.mark.parametrize(
    ("fields", "statuses"),
    [
        (b"Expect: 100-continue\r\nContent-Length: 2", "100 200 200"),
        (b"Expect: 100-CONTINUE\r\nTransfer-Encoding: chunked", "100 200 200"),
        (b"Expect: 100-continue\r\nContent-Length: 0", ON),
        (b"Expect: 100-continue", ON),
        (b"Expect: something\r\nContent-Length: 2", ON),
        (b"Expect: 100-continue\r\nContent-Length: 99999999999", "413 close"),
        (b"Expect: 100-continue\r\nContent-Length: x", BAD),
    ],
)
async def test_expectations(fields: bytes, statuses: str) -> None:  # RFC 9110 section 10.1.1
    content = b"2\r\nhi\r\n0\r\n\r\n" if b"chunked" in fields else b"hi" * (b": 2" in fields)

    written = await serve_in_memory(app, [head(b"POST / HTTP/1.1", fields), content, NEXT])

    assert re.findall(rb"HTTP/1\.1 (\d+)", written) == re.findall(rb"\d+", statuses.encode())


async def test_after_an_error_nothing_is_read() -> None:  # RFC 9112 section 9.6
    good = head(b"GET / HTTP/1.1")
    expected = {
        good + b"BAD\r\n\r\n": "200 400 close",
        good + head(b"POST / HTTP/1.1", b"Content-Length: 99999999999"): "200 413 close",
        good + head(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked") + b"z\r\n": "200 400 close",
        good + head(b"GET / HTTP/1.1", b"Connection: close") + b"BAD\r\n\r\n": "200 200 close",
    }
    await check(expected, {raw: raw for raw in expected})
