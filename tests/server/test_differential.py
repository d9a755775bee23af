"""Against uvicorn with h11: where both servers answer 200, their apps have seen the same request.

Two servers that read different requests out of the same bytes are what request smuggling is made
of. Where they do differ, `DIFFERENCES` says who is right, and why.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from minisession.server.scope import ASGIApp
from tests.effort import Tally, effort
from tests.server.cases import RAW
from tests.server.kit import read_body, reply
from tests.server.memory import serve_in_memory
from tests.server.mutants import cut, mutants, places, quick, valid_requests
from tests.server.uvicorn_protocol import Uvicorn


class Saw(NamedTuple):
    """What an app saw of a request that it has answered with 200."""

    method: str
    path: str
    raw_path: bytes
    query: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    body: bytes


def recorder(saw: list[Saw]) -> ASGIApp:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = await read_body(receive)
        if body is None:
            return
        await reply(send, b"")
        saw.append(
            Saw(
                scope["method"],
                scope["path"],
                scope["raw_path"],
                scope["query_string"],
                scope["http_version"],
                list(scope["headers"]),
                body,
            )
        )

    return app


class Difference(NamedTuple):
    """Something about which the two disagree, and ours is right."""

    why: str
    undo: Callable[[Saw, Saw], Saw]
    """What ours would have seen if it were like theirs."""


def _keep_absolute(ours: Saw, theirs: Saw) -> Saw:
    if theirs.raw_path.startswith(b"/") or theirs.raw_path == b"*":
        return ours
    return ours._replace(path=theirs.path, raw_path=theirs.raw_path, headers=theirs.headers)


def _keep_version(ours: Saw, theirs: Saw) -> Saw:
    return ours._replace(version=theirs.version) if ours.version == "1.1" else ours


DIFFERENCES = [
    Difference(
        "RFC 9112 section 3.2.2: of the absolute form, the authority replaces the Host field, and"
        " the ASGI path is the path of the target; uvicorn hands on the whole target",
        _keep_absolute,
    ),
    Difference(
        "RFC 9110 section 6.2: a later minor version is read as the highest that we know",
        _keep_version,
    ),
]


class Differential:
    """Sends the same pieces to both servers. Mutable: what they saw, and how often they differ."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self._ours: list[Saw] = []
        self._theirs: list[Saw] = []
        self._uvicorn = Uvicorn(recorder(self._theirs))

    async def compare(self, pieces: list[bytes]) -> None:
        self._ours.clear()
        self._theirs.clear()
        await serve_in_memory(recorder(self._ours), pieces)
        await self._uvicorn.serve(pieces)
        for ours, theirs in zip(self._ours, self._theirs, strict=False):
            self.tried["requests"] += 1
            self._check(ours, theirs)

    def _check(self, ours: Saw, theirs: Saw) -> None:
        for difference in DIFFERENCES:
            alike = difference.undo(ours, theirs)
            self.tried[difference.why] += alike != ours
            ours = alike
        assert ours == theirs


def test_both_see_the_same_in_every_case(tally: Tally) -> None:
    differential = Differential()

    async def compare_all() -> None:
        for raw in RAW:
            await differential.compare([raw])

    asyncio.run(compare_all())
    unseen = [each.why for each in DIFFERENCES if not differential.tried[each.why]]
    assert not unseen, "no difference any more: drop it from the table"
    tally("requests", differential.tried["requests"])


# h11 takes no empty lines before a request, though RFC 9112 section 2.2 asks for it.
valid = st.lists(valid_requests(), min_size=1, max_size=3).map(
    lambda sent: b"".join(each.raw.lstrip(b"\r\n") for each in sent)
)


def test_both_see_the_same_in_mutants_and_valid_requests(tally: Tally) -> None:
    differential = Differential()

    @quick(max_examples=effort(300, soak=50_000))
    @given(mutants() | valid, places)
    def search(raw: bytes, places: list[int]) -> None:
        runner.run(differential.compare(cut(raw, places)))

    with asyncio.Runner() as runner:
        search()
    tally("requests", differential.tried["requests"])
