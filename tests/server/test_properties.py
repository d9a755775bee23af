"""What holds for every stream of bytes and every app: one meaning, valid HTTP, and an end.

The cases that are accepted, cut everywhere; requests that are generated, and known; mutants of the
cases; the same through relay and exchange on both backends; any messages of an app; and what
`nox -s fuzz` has found.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minisession.server.config import ServerConfig
from minisession.server.cycle import Cycle, State
from minisession.server.errors import AppProtocolError
from minisession.server.requests import RequestReader
from tests.effort import Tally, effort
from tests.fuzz import inputs
from tests.server.cases import RAW
from tests.server.conversation import DATE, Seen, as_asgi, converse, echo, read_responses
from tests.server.memory import serve_in_memory

SHORT = [raw for raw in RAW if len(raw) < 1000]

quick = functools.partial(settings, deadline=None, suppress_health_check=list(HealthCheck))


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    """`raw` in pieces, cut at these places wherever they fall into it."""
    ends = sorted({place % (len(raw) + 1) for place in places} | {len(raw)})
    return [raw[i:k] for i, k in zip([0, *ends], ends, strict=False)]


places = st.lists(st.integers(0, 1 << 16), max_size=8)


def test_a_case_means_the_same_wherever_it_is_cut_in_two(tally: Tally) -> None:
    tried = 0
    for raw in RAW:
        whole = inputs.without_continue(converse([raw], echo))
        step = max(1, len(raw) // effort(25, soak=1000))
        for place in range(1, len(raw), step):
            outcome = converse([raw[:place], raw[place:]], echo)
            assert inputs.without_continue(outcome) == whole, (raw[:200], place)
            tried += len(whole.methods)

    tally("requests", tried)


def test_a_case_means_the_same_byte_by_byte() -> None:
    for raw in SHORT:
        whole = inputs.without_continue(converse([raw], echo))

        outcome = converse([raw[i : i + 1] for i in range(len(raw))], echo)

        assert inputs.without_continue(outcome) == whole


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
def requests(draw: st.DrawFn) -> Sent:
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


def test_an_app_sees_what_was_sent_however_it_arrives(tally: Tally) -> None:
    tried = 0

    @quick(max_examples=effort(150, soak=20_000))
    @given(st.lists(requests(), min_size=1, max_size=3), places)
    def search(sent: list[Sent], places: list[int]) -> None:
        nonlocal tried
        tried += len(sent)

        outcome = converse(cut(b"".join(each.raw for each in sent), places), echo)

        assert outcome.seen == [each.seen for each in sent]
        answers = [
            (response.status, response.body)
            for response in read_responses(outcome.written, outcome.methods)
        ]
        assert answers == [
            (200, b"" if each.seen.method == b"HEAD" else each.seen.body) for each in sent
        ]
        assert not outcome.is_closed

    search()
    tally("requests", tried)


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


def test_a_mutant_has_one_meaning_and_valid_answers(tally: Tally) -> None:
    tried = 0

    @quick(max_examples=effort(500, soak=100_000))
    @given(mutants())
    def search(raw: bytes) -> None:
        nonlocal tried
        tried += 1

        inputs.check_requests(raw)

    search()
    tally("requests", tried)


commands = st.sampled_from(
    [b"R", b"S200", b"S204", b"Ma", b"M", b"Lb", b"L", b"S200;content-length:1"]
)
programs = st.sampled_from([*inputs.APPS]) | st.lists(commands, max_size=6).map(b"\n".join)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_whole_server_writes_what_its_parts_without_io_write(
    backend: str, tally: Tally
) -> None:
    tried = 0

    @quick(max_examples=effort(150, soak=20_000))
    @given(mutants() | st.sampled_from(SHORT), places, programs | st.none(), st.integers(1, 200))
    def search(raw: bytes, places: list[int], program: bytes | None, send_size: int) -> None:
        nonlocal tried
        tried += 1
        app = echo if program is None else inputs.app_of(program)
        pieces = cut(raw, places)
        outcome = converse(pieces, app, inputs.CONFIG)

        written = portal.call(serve_in_memory, as_asgi(app), pieces, inputs.CONFIG, send_size)

        assert written == outcome.written

    with start_blocking_portal(backend) as portal:
        search()
    tally("requests", tried)


fields = st.lists(
    st.tuples(names, values)
    | st.sampled_from(
        [
            (b"content-length", b"0"),
            (b"Content-Length", b"3"),
            (b"content-length", b"x"),
            (b"transfer-encoding", b"gzip"),
            (b"connection", b"close"),
            (b"connection", b"keep-alive, x"),
            (b"date", b"now"),
            (b"a", b"b\r\nset-cookie: c"),
            (b"a b", b"c"),
            (b"", b""),
            (b"a", " b"),
            ("a", b"b"),
            (b"a",),
            None,
        ]
    ),
    max_size=3,
)
statuses = st.sampled_from(
    [200, 204, 205, 206, 304, 404, 500, 999, 100, 101, 199, 1000, "200", None]
)
starts = st.fixed_dictionaries(
    {"type": st.just("http.response.start"), "status": statuses},
    optional={"headers": fields | st.none()},
)
pieces = st.fixed_dictionaries(
    {"type": st.just("http.response.body")},
    optional={
        "body": st.sampled_from(
            [b"", b"abc", b"a", bytearray(b"bc"), memoryview(b"abc"), "", None]
        ),
        "more_body": st.sampled_from([True, False, None, 1]),
    },
)
others = st.sampled_from([{}, {"type": None}, {"type": "http.response.trailers"}, {"type": "x"}])
REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n",
)


def test_any_messages_of_an_app_give_one_response_or_a_protocol_error(tally: Tally) -> None:
    tried = 0

    @quick(max_examples=effort(400, soak=50_000))
    @given(st.sampled_from(REQUESTS), st.lists(starts | pieces | pieces | others, max_size=8))
    def search(raw: bytes, messages: list[dict[str, Any]]) -> None:
        nonlocal tried
        tried += 1
        cycle = cycle_of(raw)
        written, accepted = b"", []
        for message in messages:
            before = cycle.state
            try:
                written += cycle.send(message)
            except AppProtocolError:
                assert cycle.state is before
            else:
                assert before is not State.COMPLETE
                accepted.append(message)

        check_response(cycle, accepted, written + (b"" if cycle.is_over else cycle.refuse(500)))

    search()
    tally("requests", tried)


def cycle_of(raw: bytes) -> Cycle:
    reader = RequestReader(ServerConfig(), "http")
    reader.feed(raw)
    request = reader.next_request()
    assert request is not None
    return Cycle(reader, request, lambda: DATE)


def check_response(cycle: Cycle, accepted: list[dict[str, Any]], written: bytes) -> None:
    """Check that a client reads what was accepted, or that something went wrong."""
    (response,) = read_responses(written, [cycle.request.method])
    if cycle.state is State.REFUSED:
        assert (response.status, response.is_complete) == (500, True)
        return
    assert response.status == accepted[0]["status"]
    body = b"".join(bytes(each.get("body", b"")) for each in accepted[1:])
    if cycle.request.method == b"HEAD" or response.status in (204, 304):
        body = b""
    assert response.body == body
    assert response.is_complete or cycle.state is State.BROKEN


FOUND = [
    # a fault, then a line or a head that is too long: 400 in pieces, but 414 or 431 at once
    b"GET / HTTP" + b"z" * 80 + b"\0" * 100 + b"z" * 30 + b"/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nA: \0" + b"a" * 1000,
    # a chunk that is larger than what is allowed, then a fault: 413 in pieces, but 400 at once
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n" + b"a" * 4096 + b"x",
]


@pytest.mark.parametrize("data", FOUND)
def test_what_the_fuzzer_has_found_stays_mended(data: bytes) -> None:
    inputs.check_input(data)
