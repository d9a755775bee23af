"""What holds for every stream of bytes and every app: one meaning, valid HTTP, and an end.

The cases that are accepted, cut everywhere; requests that are generated, and known; mutants of the
cases; the same through relay and exchange on both backends; any messages of an app; and what
`nox -s fuzz` has found.
"""

from __future__ import annotations

from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import given
from hypothesis import strategies as st

from minisession.server.config import ServerConfig
from minisession.server.cycle import Cycle, State
from minisession.server.errors import AppProtocolError
from minisession.server.requests import RequestReader
from tests.effort import Tally, effort
from tests.fuzz import inputs
from tests.server.cases import RAW
from tests.server.conversation import DATE, as_asgi, converse, echo, read_responses
from tests.server.memory import serve_in_memory
from tests.server.mutants import (
    SHORT,
    Sent,
    cut,
    mutants,
    names,
    places,
    quick,
    valid_requests,
    values,
)


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


def test_an_app_sees_what_was_sent_however_it_arrives(tally: Tally) -> None:
    tried = 0

    @quick(max_examples=effort(150, soak=20_000))
    @given(st.lists(valid_requests(), min_size=1, max_size=3), places)
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
# What is right by itself, so that what is wrong with it as a whole is found, too.
plain_starts = st.builds(
    lambda status, headers: {
        "type": "http.response.start",
        "status": status,
        "headers": headers,
    },
    st.sampled_from([200, 204, 304]),
    st.sampled_from([[], [(b"content-length", b"3")]]),
)
plain_pieces = st.builds(
    lambda body, more: {"type": "http.response.body", "body": body, "more_body": more},
    st.sampled_from([b"", b"a", b"bc", b"abc"]),
    st.booleans(),
)
plain = st.tuples(plain_starts, plain_pieces, plain_pieces, plain_pieces).map(list)
others = st.sampled_from([{}, {"type": None}, {"type": "http.response.trailers"}, {"type": "x"}])
anything = st.lists(starts | pieces | pieces | others, max_size=8)
REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n",
)


def test_any_messages_of_an_app_give_one_response_or_a_protocol_error(tally: Tally) -> None:
    tried = 0

    @quick(max_examples=effort(400, soak=50_000))
    @given(st.sampled_from(REQUESTS), plain | anything)
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
    if cycle.request.method == b"HEAD" or response.status in (204, 205, 304):
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
