"""Streams of bytes to try on a server: valid requests, faulty ones, and ways to cut them.

A valid request comes with what an app is to see of it; a mutant is an acceptance case, or two,
with a few faults, and nobody knows what to expect of it.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.server.cases import RAW
from tests.server.conversation import Seen

SHORT = [raw for raw in RAW if len(raw) < 1000]

quick = functools.partial(settings, deadline=None, suppress_health_check=list(HealthCheck))


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    """`raw` in pieces, cut at these places wherever they fall into it."""
    ends = sorted({place % (len(raw) + 1) for place in places} | {len(raw)})
    return [raw[i:k] for i, k in zip([0, *ends], ends, strict=False)]


places = st.lists(st.integers(0, 1 << 16), max_size=8)


class Sent(NamedTuple):
    """A request as it is written, and what an app is to see of it."""

    raw: bytes
    seen: Seen


TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
tokens = st.text(TOKEN, min_size=1, max_size=8).map(str.encode)
NOT_FREE = (b"host", b"connection", b"content-length", b"transfer-encoding", b"expect")
names = tokens.filter(lambda name: name.lower() not in NOT_FREE)
values = st.text("aA0,;=\"' \t\xe4\xff", max_size=12).map(
    lambda text: text.encode("latin-1").strip()
)
blanks = st.sampled_from([b"", b" ", b"\t "])
methods = tokens.filter(lambda method: method not in (b"CONNECT", b"TRACE"))
paths = st.lists(
    st.sampled_from([b"a", b"/", b"%41", b"%C3%A4", b".", b"..", b";", b":", b"@", b"+"]),
    max_size=6,
).map(lambda parts: b"/" + b"".join(parts))
queries = st.sampled_from([None, b"", b"a=b", b"?%00&x", b"/?"])
extensions = st.sampled_from([b"", b";a", b' ; a = "b\\";c"', b";a=b;c"])
trailers = st.sampled_from([b"", b"a: 1\r\n", b"Content-Length: 7\r\nHost: b\r\n"])


@st.composite
def bodies(draw: st.DrawFn) -> tuple[list[tuple[bytes, bytes]], bytes, bytes]:
    """A body: the header that frames it, how it is written, what it is."""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=4))
    whole = b"".join(pieces)
    if draw(st.booleans()):
        coded = [b"%x%b\r\n%b\r\n" % (len(p), draw(extensions), p) for p in pieces]
        end = b"0" * draw(st.integers(1, 3)) + draw(extensions) + b"\r\n" + draw(trailers) + b"\r\n"
        return [(b"Transfer-Encoding", b"chunked")], b"".join(coded) + end, whole
    if whole or draw(st.booleans()):
        return [(b"Content-Length", b"%d" % len(whole))], whole, whole
    return [], b"", b""


@st.composite
def valid_requests(draw: st.DrawFn) -> Sent:
    """A request that is valid in every detail."""
    method, path, query = draw(methods), draw(paths), draw(queries)
    framing, written, body = draw(bodies())
    fields = [(b"Host", b"a:80"), *draw(st.lists(st.tuples(names, values), max_size=5)), *framing]
    target = path if query is None else path + b"?" + query
    lines = [b"%b:%b%b%b\r\n" % (n, draw(blanks), v, draw(blanks)) for n, v in fields]
    empty_lines = b"\r\n" * draw(st.integers(0, 4))
    raw = empty_lines + b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, b"".join(lines)) + written
    headers = tuple((name.lower(), value) for name, value in fields)
    return Sent(raw, Seen(method, path, query or b"", headers, body))


words = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b",", b";", b"\0", b"\xff", b"0", b"-1"]
) | st.binary(min_size=1, max_size=3)


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """One or two of the cases, with a few faults."""
    raw = b"".join(draw(st.lists(st.sampled_from(SHORT), min_size=1, max_size=2)))
    for mutate in draw(st.lists(st.sampled_from(MUTATIONS), min_size=1, max_size=4)):
        raw = mutate(draw, raw)
    return raw


def _replaced(draw: st.DrawFn, raw: bytes) -> bytes:
    """Bytes deleted, inserted or replaced."""
    start = draw(st.integers(0, len(raw)))
    return raw[:start] + draw(words | st.just(b"")) + raw[start + draw(st.integers(0, 4)) :]


def _rearranged(draw: st.DrawFn, raw: bytes) -> bytes:
    """A line dropped, and put somewhere else as often as not."""
    lines = raw.split(b"\r\n")
    line = lines.pop(draw(st.integers(0, len(lines) - 1)))
    for _ in range(draw(st.integers(0, 2))):
        lines.insert(draw(st.integers(0, len(lines))), line)
    return b"\r\n".join(lines)


MUTATIONS = [_replaced, _rearranged]
