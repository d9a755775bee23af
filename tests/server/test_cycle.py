"""The cycle: ASGI messages in, bytes out, and back; compared as values."""

from __future__ import annotations

from typing import Any

import pytest

from minisession.server.config import ServerConfig
from minisession.server.cycle import TRANSITIONS, Cycle, Event, State, error_response
from minisession.server.errors import AppProtocolError, ClientDisconnected, RequestRefused
from minisession.server.requests import RequestReader
from tests.server import draw_response
from tests.server.kit import OK, OK_HEAD, get, request

DATE = b"Mon, 01 Jan 2024 00:00:00 GMT"


def cycle_of(raw: bytes, **config: Any) -> tuple[Cycle, RequestReader]:
    reader = RequestReader(ServerConfig(**config), "http")
    reader.feed(raw)
    head = reader.next_request()
    assert head is not None
    return Cycle(reader, head, lambda: DATE), reader


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data: bytes = b"", more_body: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more_body}


def in_state(state: State) -> Cycle:
    cycle, _ = cycle_of(get())
    if state is not State.WAITING and state is not State.REFUSED:
        cycle.send(start())
    if state in (State.STREAMING, State.BROKEN):
        cycle.send(body(b"x", more_body=True))
    if state is State.COMPLETE:
        cycle.send(body())
    if state in (State.REFUSED, State.BROKEN):
        cycle.refuse(500)
    assert cycle.state is state
    return cycle


def happen(cycle: Cycle, event: Event) -> bytes:
    if event is Event.REFUSE:
        return cycle.refuse(500)
    if event is Event.START:
        return cycle.send(start())
    return cycle.send(body(b"x", more_body=event is Event.MORE))


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_a_response_lives_as_the_table_says(state: State, event: Event) -> None:
    cycle = in_state(state)
    following = TRANSITIONS[state].get(event)

    if following is None:
        with pytest.raises((AppProtocolError, ClientDisconnected)):
            happen(cycle, event)
    else:
        happen(cycle, event)

    assert cycle.state is (following or state)
    assert cycle.is_over is (cycle.state in (State.COMPLETE, State.REFUSED, State.BROKEN))


def test_the_picture_in_the_documentation_is_drawn_from_the_table() -> None:
    drawn = draw_response.FILE.read_text()

    assert drawn == draw_response.draw(), "python -m tests.server.draw_response"


def test_head_and_whole_body_are_one_write() -> None:
    cycle, _ = cycle_of(get())

    assert cycle.send(OK_HEAD) == b""
    assert cycle.send(body(b"ok")) == OK


def test_a_body_that_is_known_wholly_gets_its_length_and_a_date() -> None:
    cycle, _ = cycle_of(get())

    cycle.send(start(200, (b"A", b"1")))

    assert cycle.send(body(b"ok")) == (
        b"HTTP/1.1 200 OK\r\nA: 1\r\ndate: %b\r\ncontent-length: 2\r\n\r\nok" % DATE
    )


def test_a_body_in_pieces_is_chunked_for_http_1_1() -> None:
    cycle, _ = cycle_of(get())
    cycle.send(start(200, (b"transfer-encoding", b"gzip"), (b"date", b"now")))

    written = [cycle.send(body(b"part", True)), cycle.send(body(b"", True)), cycle.send(body())]

    assert written == [
        b"HTTP/1.1 200 OK\r\ndate: now\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n",
        b"",
        b"0\r\n\r\n",
    ]
    assert cycle.keeps_alive


def test_a_body_in_pieces_ends_with_the_connection_for_http_1_0() -> None:
    cycle, _ = cycle_of(b"GET / HTTP/1.0\r\n\r\n")
    cycle.send(start(200, (b"date", b"now")))

    first = cycle.send(body(b"part", True))

    assert first == b"HTTP/1.1 200 OK\r\ndate: now\r\nconnection: close\r\n\r\npart"
    cycle.refuse(500)
    assert cycle.is_cut_off


@pytest.mark.parametrize(
    ("raw", "status"), [(request("HEAD", "/"), 200), (get(), 204), (get(), 304)]
)
def test_what_has_no_body_gets_none(raw: bytes, status: int) -> None:
    cycle, _ = cycle_of(raw)
    cycle.send(start(status, (b"content-length", b"2"), (b"date", b"now")))

    written = cycle.send(body(b"o", True)) + cycle.send(body(b"k"))

    assert written.endswith(b"date: now\r\n\r\n")
    assert (b"content-length: 2" in written) is (status != 204)


@pytest.mark.parametrize("raw", [get(), request("HEAD", "/")])
@pytest.mark.parametrize("length", [None, b"0", b"2"])
def test_a_205_says_that_it_has_no_content_and_has_none(raw: bytes, length: bytes | None) -> None:
    cycle, _ = cycle_of(raw)
    headers = [(b"content-length", length)] if length is not None else []
    cycle.send(start(205, (b"date", b"now"), *headers))

    written = cycle.send(body(b"o", True)) + cycle.send(body(b"k"))

    assert written == (b"HTTP/1.1 205 Reset Content\r\ndate: now\r\ncontent-length: 0\r\n\r\n")
    assert cycle.keeps_alive


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"type": "http.response.push"}, "'http.response.push' came; allowed is"),
        (start(101), "status 101 .* allowed is 200-999"),
        (start(200, (b"a", b"b\r\nc: d")), "not a pair of bytes"),
        (start(200, (b"a", b"b\0")), "not a pair of bytes"),
        (start(200, (b"a b", b"")), "not a pair of bytes"),
        (start(200, (b"content-length", b"x")), "not a pair of bytes"),
        ({"type": "http.response.start", "status": 200, "headers": [("a", "b")]}, "not a pair"),
        ({"type": "http.response.start", "status": 200, "headers": [b"a"]}, "not a pair"),
        ({"type": "http.response.start"}, "status None"),
    ],
)
def test_a_message_that_asgi_does_not_allow_is_reported_and_changes_nothing(
    message: dict[str, Any], problem: str
) -> None:
    cycle, _ = cycle_of(get())

    with pytest.raises(AppProtocolError, match=problem):
        cycle.send(message)

    assert cycle.state is State.WAITING
    assert cycle.send(OK_HEAD) + cycle.send(body(b"ok")) == OK


def test_a_refused_header_value_is_not_repeated_in_the_error() -> None:
    cycle, _ = cycle_of(get())

    with pytest.raises(AppProtocolError) as error:
        cycle.send(start(200, (b"set-cookie", b"secret\n")))

    assert "secret" not in str(error.value)
    assert error.value.__suppress_context__


@pytest.mark.parametrize("data", ["text", None, 5])
def test_a_body_that_is_no_bytes_is_reported(data: Any) -> None:
    cycle, _ = cycle_of(get())
    cycle.send(OK_HEAD)

    with pytest.raises(AppProtocolError, match=f"body of type {type(data).__name__}"):
        cycle.send(body(data))


@pytest.mark.parametrize("data", [b"o", b"okk"])
def test_a_body_that_does_not_fit_its_length_leaves_nothing_on_the_wire(data: bytes) -> None:
    cycle, _ = cycle_of(get())
    cycle.send(OK_HEAD)

    with pytest.raises(AppProtocolError, match="does not fit"):
        cycle.send(body(data))

    assert cycle.refuse(500) == error_response(500, DATE)


def test_an_error_response_has_no_details_and_closes() -> None:
    assert error_response(400, DATE) == (
        b"HTTP/1.1 400 Bad Request\r\ndate: %b\r\ncontent-type: text/plain\r\n"
        b"content-length: 12\r\nconnection: close\r\n\r\nBad Request\n" % DATE
    )


def test_an_error_response_to_head_has_no_body() -> None:
    cycle, _ = cycle_of(request("HEAD", "/"))

    assert cycle.refuse(500).endswith(b"\r\n\r\n")
    assert (cycle.status, cycle.keeps_alive) == (500, False)


def test_a_response_that_is_cut_off_keeps_its_status() -> None:
    cycle = in_state(State.STREAMING)

    assert cycle.refuse(500) == b""
    assert cycle.status == 200


def test_the_last_response_of_a_connection_says_so() -> None:
    cycle, _ = cycle_of(get())
    cycle.send(OK_HEAD)

    cycle.close_after()

    assert b"\r\nconnection: close\r\n" in cycle.send(body(b"ok"))
    assert not cycle.keeps_alive


@pytest.mark.parametrize(
    ("left", "closes"), [(0, False), (64 * 1024, False), (64 * 1024 + 1, True)]
)
def test_a_body_that_nobody_read_is_dropped_if_it_is_small(left: int, closes: bool) -> None:
    cycle, _ = cycle_of(request("POST", "/", f"Content-Length: {left}"))
    cycle.send(OK_HEAD)

    written = cycle.send(body(b"ok"))

    assert (b"connection: close" in written) is closes
    assert cycle.keeps_alive is not closes


def test_an_answer_instead_of_100_continue_is_the_last_one() -> None:
    cycle, _ = cycle_of(request("POST", "/", "Content-Length: 1", "Expect: 100-continue"))
    cycle.send(OK_HEAD)

    assert cycle.wants_continue
    assert b"connection: close" in cycle.send(body(b"ok"))


def test_no_100_continue_is_wanted_once_a_response_has_begun() -> None:
    cycle, _ = cycle_of(request("POST", "/", "Content-Length: 1", "Expect: 100-continue"))
    cycle.send(start())
    assert cycle.wants_continue  # nothing is on the wire

    cycle.send(body(b"x", more_body=True))

    assert not cycle.wants_continue
    assert not cycle.keeps_alive


def test_a_100_continue_is_sent_once() -> None:
    cycle, _ = cycle_of(request("POST", "/", "Content-Length: 1", "Expect: 100-continue"))

    assert cycle.send_continue() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert not cycle.wants_continue


def test_a_request_without_a_body_is_one_message_then_silence_then_the_end() -> None:
    cycle, reader = cycle_of(get())

    assert cycle.receive_nowait() == {"type": "http.request", "body": b"", "more_body": False}
    assert cycle.receive_nowait() is None
    reader.feed(b"")
    assert cycle.receive_nowait() == {"type": "http.disconnect"}


def test_a_body_comes_piece_by_piece() -> None:
    cycle, reader = cycle_of(request("POST", "/", "Content-Length: 3"))
    assert cycle.receive_nowait() is None
    assert cycle.owes_body

    reader.feed(b"ab")
    first = cycle.receive_nowait()
    reader.feed(b"cGET /")
    last = cycle.receive_nowait()

    assert first == {"type": "http.request", "body": b"ab", "more_body": True}
    assert last == {"type": "http.request", "body": b"c", "more_body": False}
    assert not cycle.owes_body
    assert reader.buffered == 5


def test_a_body_that_breaks_off_is_refused() -> None:
    cycle, reader = cycle_of(request("POST", "/", "Content-Length: 3"))
    reader.feed(b"")

    with pytest.raises(RequestRefused) as refusal:
        cycle.receive_nowait()

    assert refusal.value.status == 400


def test_after_the_response_receive_says_disconnect_and_takes_no_bytes() -> None:
    cycle, reader = cycle_of(get() + get("/2"))
    before = reader.buffered
    cycle.send(OK_HEAD)
    cycle.send(body(b"ok"))

    assert cycle.receive_nowait() == {"type": "http.disconnect"}
    assert reader.buffered == before
    assert repr(cycle) == "<Cycle b'GET' COMPLETE>"


# --- after the app was told that its client is gone, which may only have closed its half ----------


def told_the_end(raw: bytes = get(), *sent: dict[str, Any]) -> Cycle:
    cycle, reader = cycle_of(raw)
    assert cycle.receive_nowait() == {"type": "http.request", "body": b"", "more_body": False}
    for message in sent:
        cycle.send(message)
    reader.feed(b"")
    assert cycle.receive_nowait() == {"type": "http.disconnect"}
    return cycle


LENGTH = (b"content-length", b"4")


@pytest.mark.parametrize(
    ("raw", "sent", "last", "state"),
    [
        (get(), [start(), body(b"ab", more_body=True)], body(), State.BROKEN),
        (get(), [start(), body(b"ab", more_body=True)], body(b"cd"), State.BROKEN),
        (get(), [start(200, LENGTH), body(b"ab", more_body=True)], body(), State.BROKEN),
        (b"GET / HTTP/1.0\r\n\r\n", [start(), body(b"a", more_body=True)], body(), State.BROKEN),
        (get(), [start()], body(), State.REFUSED),
        (get(), [start(200, LENGTH)], body(b"ab"), State.REFUSED),
    ],
)
def test_a_response_that_may_have_been_broken_off_never_looks_whole(
    raw: bytes, sent: list[dict[str, Any]], last: dict[str, Any], state: State
) -> None:
    cycle = told_the_end(raw, *sent)

    with pytest.raises(ClientDisconnected):
        cycle.send(last)

    assert (cycle.state, cycle.is_over) == (state, True)


@pytest.mark.parametrize(
    ("raw", "sent", "last", "written"),
    [
        (get(), [start(200, LENGTH), body(b"ab", more_body=True)], body(b"cd"), b"cd"),
        (get(), [start(200, LENGTH)], body(b"abcd"), b"\r\n\r\nabcd"),
        (get(), [start(204)], body(), b"\r\n\r\n"),
    ],
)
def test_one_whose_own_length_says_that_it_is_whole_is_completed(
    raw: bytes, sent: list[dict[str, Any]], last: dict[str, Any], written: bytes
) -> None:
    cycle = told_the_end(raw, *sent)

    assert cycle.send(last).endswith(written)
    assert cycle.state is State.COMPLETE
