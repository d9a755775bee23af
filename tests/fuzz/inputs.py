"""What a fuzzer's bytes mean, and what must hold for every one of them.

An input is an app, an empty line with NUL, and what a client sends; without that line it is all
the client's. The app is lines of one command each:

    R                         receive once
    S200;name:value;x:y       http.response.start
    Mbytes                    http.response.body, more to come
    Lbytes                    http.response.body, the last

It knows nothing of the fuzzer: tests replay what one has found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from zlib import crc32

from minisession.server.config import ServerConfig
from minisession.server.scope import Message
from tests.server.cases import RAW
from tests.server.conversation import (
    App,
    Outcome,
    Reading,
    Response,
    Seen,
    Steps,
    converse,
    echo,
    read_requests,
    read_responses,
)

SEPARATOR = b"\n\0\n"

# So small that short inputs reach every limit.
CONFIG = ServerConfig(max_request_line=200, max_head=1000, max_body=2000)

APPS = (
    b"S200;content-type:text/plain;content-length:2\nLok",
    b"R\nS200\nMa\nM\nLb",
    b"S204;x:y\nL",
    b"S304;etag:x\nLbody",
    b"R\nR\nR\nR\nS404;connection:close\nL",
    b"S200;date:now;transfer-encoding:gzip;content-length:5\nMabc\nLde",
    b"S200;content-length:5\nMabc\nL",
    b"Lbody\nS200",
)


def seeds() -> Iterator[bytes]:
    """Every acceptance case, then some of them with each app."""
    yield from RAW
    for index, app in enumerate(APPS):
        for raw in RAW[index :: len(APPS)]:
            yield app + SEPARATOR + raw


def check_input(data: bytes) -> None:
    """Check all that must hold, whatever the input is.

    Raises:
        AssertionError: something does not.
    """
    program, separator, raw = data.rpartition(SEPARATOR)
    check_requests(raw)
    if separator:
        check_conversation(converse([raw], app_of(program), CONFIG))


def check_requests(raw: bytes) -> None:
    """Check that these bytes mean one thing, however they arrive and whoever reads them."""
    whole = converse([raw], echo, CONFIG)
    check_conversation(whole)
    for pieces in _ways_to_cut(raw):
        outcome = converse(pieces, echo, CONFIG)
        assert without_continue(outcome) == without_continue(whole), f"differs in pieces: {pieces}"
    check_agreement(whole.seen, read_requests(raw))


def _ways_to_cut(raw: bytes) -> Iterator[list[bytes]]:
    """In two, and in equal pieces; chosen by the bytes, because all ways would take too long."""
    cut = crc32(raw) % (len(raw) + 1)
    yield [raw[:cut], raw[cut:]]
    size = 1 + len(raw) % 24
    yield [raw[i : i + size] for i in range(0, len(raw), size)]


def without_continue(outcome: Outcome) -> Outcome:
    """The same without `100 Continue`, which a body that has come already makes needless."""
    written = outcome.written.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    return replace(outcome, written=written)


def check_conversation(outcome: Outcome) -> list[Response]:
    """Check that a client can read what was written; return that."""
    responses = read_responses(outcome.written, outcome.methods)
    refused = len(responses) - len(outcome.methods)
    assert refused <= 1, "more responses than requests"
    if refused == 1:
        assert responses[-1].status >= 400
        assert outcome.is_closed
    assert len(responses) >= len(outcome.methods) - (not outcome.is_closed)
    assert all(response.is_complete for response in responses[:-1])
    if responses:
        assert responses[-1].is_complete or outcome.is_cut_off
    return responses


def check_agreement(seen: Sequence[Seen], other: Reading) -> None:
    """Check that two readers who both accept a request mean the same one, and the same end."""
    for ours, theirs in zip(seen, other.seen, strict=False):
        if not theirs.raw_path.startswith(b"/"):
            return  # the absolute form, which h11 leaves to others
        assert ours == theirs, "another request than h11's"
    assert other.is_refused or len(seen) <= len(other.seen), "read beyond h11's end"


def app_of(program: bytes) -> App:
    """The app that a program describes."""

    def app() -> Steps:
        for line in program.split(b"\n"):
            if line[:1] == b"R":
                yield None
            elif (message := _message(line)) is not None:
                yield message

    return app


def _message(line: bytes) -> Message | None:
    command, rest = line[:1], line[1:]
    if command == b"S":
        status, *fields = rest.split(b";")
        pairs = [field.partition(b":")[::2] for field in fields]
        number = int(status) if status.isdigit() else 200
        return {"type": "http.response.start", "status": number, "headers": pairs}
    if command in (b"M", b"L"):
        return {"type": "http.response.body", "body": rest, "more_body": command == b"M"}
    return None
