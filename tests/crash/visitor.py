"""A visitor with a browser: asks for pages, and keeps what the answers have promised.

An answer counts from the moment when its head is complete: that is all a browser needs to take
over a cookie, and what P4 speaks of. The bytes are read here, raw.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import ByteStream

from tests.crash.app import ISSUING, NOTHING, ROTATING, State, after
from tests.crash.world import World

COOKIE = re.compile(rb"(?im)^set-cookie: MINISESSID=([^;\r]*)")
LENGTH = re.compile(rb"(?im)^content-length: (\d+)")


class Refused(Exception):
    """A 503: what was asked for is stored or not, as if no answer had come."""


Lost = (OSError, anyio.BrokenResourceError, anyio.EndOfStream, Refused)
"""How the death of a server is seen, or that of its store."""


def handle_of(id: str) -> str:
    """Return the public part of an id."""
    return id.partition(".")[0]


@dataclass
class Visitor:
    """One browser; `state` is what its session holds for certain.

    Attributes:
        name: for the paths.
        id: its cookie.
        state: what was acknowledged.
        asked: the page and number of a request without an answer, None if there is none.
        dead: ids that were replaced or ended, certainly.
        n: how many requests it has sent.
        answered: called with the page at each answer.
    """

    name: str
    id: str | None = None
    state: State = NOTHING
    asked: tuple[str, int] | None = None
    dead: list[str] = field(default_factory=list)
    n: int = 0
    answered: Callable[[str], object] = str

    async def browse(self, port: int, pages: Iterator[str]) -> None:
        """Ask for one page after the other, on one connection. Raises one of `Lost` with it."""
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            for page in pages:
                await self.ask(stream, page)

    async def ask(self, stream: ByteStream, page: str, query: str = "") -> None:
        """Ask for one page, and require that the answer shows what must be in the session."""
        self.n += 1
        self.asked = page, self.n
        cookie = "" if self.id is None else f"cookie: MINISESSID={self.id}\r\n"
        path = f"/{self.name}/{page}/{self.n}{query}"
        await stream.send(f"GET {path} HTTP/1.1\r\nhost: example.com\r\n{cookie}\r\n".encode())
        head, body = await self._head(stream)
        if head.startswith(b"HTTP/1.1 503 "):
            assert COOKIE.search(head) is None
            raise Refused
        self._acknowledge(head)
        assert json.loads(await _body(stream, head, body)) == self.state.data
        self.answered(page)

    async def _head(self, stream: ByteStream) -> tuple[bytes, bytes]:
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive()
        head, _, body = received.partition(b"\r\n\r\n")
        return head, body

    def _acknowledge(self, head: bytes) -> None:
        assert head.startswith(b"HTTP/1.1 200 "), head
        assert self.asked is not None
        before, self.state = self.state, after(self.state, *self.asked)
        cookie = COOKIE.search(head)
        issued = self.state.lives and (not before.lives or self.asked[0] in ISSUING)
        assert bool(cookie and cookie[1]) is issued
        if self.id is not None and (issued or not self.state.lives):
            self.dead.append(self.id)
        if cookie is not None:
            self.id = cookie[1].decode() or None
        self.asked = None

    # --- after a crash -------------------------------------------------------------------------

    def require(self, world: World) -> None:
        """Require that a world keeps what was acknowledged, and take over which way it went."""
        for id in self.dead:
            assert world.opened(id) is None, "a dead id opens a session"
        if self.id is not None:
            self._require_session(world, self.id)
        self.asked = None

    def _require_session(self, world: World, id: str) -> None:
        data = world.opened(id)
        found = NOTHING if data is None else State(True, data)
        if found == self.state:
            return
        assert self.asked is not None, "what was acknowledged is not there"
        wanted = after(self.state, *self.asked)
        if data is not None:
            assert self.asked[0] not in ISSUING, "the new state is there, under the old id"
            assert found == wanted
            self.state = found
            return
        # Either the answer would have carried another id, or it would have been a logout.
        moved_on = wanted.data if self.asked[0] in ROTATING else None
        assert world.data.get(handle_of(id)) == moved_on
        assert self.asked[0] in ISSUING or not wanted.lives
        self.dead.append(id)
        self.id, self.state = None, NOTHING

    @property
    def may_leave_an_orphan(self) -> bool:
        """Whether the request without an answer may have begun a session that nobody knows."""
        if self.asked is None:
            return False
        begins = not self.state.lives or self.asked[0] == "goodbye"
        return begins and after(self.state, *self.asked).lives


async def _body(stream: ByteStream, head: bytes, body: bytes) -> Any:
    length = LENGTH.search(head)
    assert length is not None
    while len(body) < int(length[1]):
        body += await stream.receive()
    return body


class Town:
    """Several visitors of one store.

    Attributes:
        visitors: all of them.
        orphans: handles of sessions that live, and whose ids no answer has carried.
    """

    def __init__(self, visitors: list[Visitor]) -> None:
        self.visitors = visitors
        self.orphans: set[str] = set()

    @property
    def _handles(self) -> set[str]:
        return {handle_of(visitor.id) for visitor in self.visitors if visitor.id is not None}

    def require(self, world: World) -> None:
        """Require that a world keeps what was acknowledged, and holds nothing that it must not."""
        assert world.damage == []
        births = sum(visitor.may_leave_an_orphan for visitor in self.visitors)
        known = self._handles
        for visitor in self.visitors:
            visitor.require(world)
        unknown = world.data.keys() - known - self.orphans
        assert len(unknown) <= births, "a session lives that nobody began, or that had ended"
        assert world.data.keys() >= self.orphans
        self.orphans |= world.data.keys() - self._handles
