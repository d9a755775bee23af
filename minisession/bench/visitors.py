"""Visitors: each is one task with one session, its own manner, and a browser's memory for a cookie.

A visitor plays both the browser and the server: it calls the application, whose session middleware
sees a request as any server would send it, and it reads the response's headers. It does not know
what is done with the session; the shop does.

    Crowd     what all visitors of one run share
    Gate      holds the first request of each open until all are there
    Manner    what one visitor does that others do not
    Visitor   one visit: two or three requests
"""

from __future__ import annotations

import random
import time
from array import array
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import anyio.lowlevel
from anyio import CancelScope

from minisession import MinisessionError, NoActiveSession, current, session

from .findings import Findings, tag

Message = MutableMapping[str, Any]
ASGIApp = Callable[..., Awaitable[None]]


class Gate:
    """Holds requests open until all that can come have come.

    Attributes:
        held: how many stood at it when it opened.
    """

    def __init__(self, expected: int, on_full: Callable[[], None]) -> None:
        self.held = 0
        self._expected = expected
        self._on_full = on_full
        self._opened = anyio.Event()

    async def pass_through(self) -> None:
        """Wait for the others; the last one opens it for all."""
        self.held += 1
        self._open_if_all_are_there()
        await self._opened.wait()

    def give_up(self) -> None:
        """Say that somebody will not come: nobody waits for a request that has failed."""
        self._expected -= 1
        self._open_if_all_are_there()

    def _open_if_all_are_there(self) -> None:
        if self.held == self._expected:
            self._on_full()
            self._opened.set()


@dataclass(frozen=True, slots=True)
class Manner:
    """What a visitor does that others do not.

    Attributes:
        has_children: its first request has child tasks that write.
        uses_a_thread: its first request writes in a worker thread.
        streams: its first answer is a stream, which writes after its headers have left.
        changes: a request in the middle changes what the first one has stored.
        logs_in: that request replaces the id, too.
        hangs_up_after: so many steps of the loop after that request has begun, it is cancelled;
            None for a visitor who waits for the answer.
        pauses: two bits for each pause, which decide for how long it lets others go first.
    """

    has_children: bool
    uses_a_thread: bool
    streams: bool
    changes: bool
    logs_in: bool
    hangs_up_after: int | None
    pauses: int

    @classmethod
    def drawn(cls, rng: random.Random) -> Self:
        """Draw one: a quarter has child tasks, a tenth hangs up, and so on."""
        changes = rng.random() < 0.4
        hangs_up = changes and rng.random() < 0.25
        return cls(
            has_children=rng.random() < 0.25,
            uses_a_thread=rng.random() < 0.1,
            streams=rng.random() < 0.25,
            changes=changes,
            # Not if it hangs up: whoever misses the answer cannot know the new id.
            logs_in=changes and not hangs_up and rng.random() < 0.5,
            hangs_up_after=rng.randrange(1, 9) if hangs_up else None,
            pauses=rng.getrandbits(24),
        )

    @property
    def requests(self) -> int:
        """How many requests the visit has."""
        return 3 if self.changes else 2


@dataclass
class Crowd:
    """What the visitors of one run share, and what is counted of them.

    Attributes:
        app: what they visit.
        gate: where their first requests are held.
        findings: what they saw.
        latencies: seconds that answered requests took, less what they were held at the gate.
        done: requests that are over.
        hung_up: requests that a cancellation cut off.
    """

    app: ASGIApp
    gate: Gate
    findings: Findings = field(default_factory=Findings)
    latencies: array[float] = field(default_factory=lambda: array("d"))
    done: int = 0
    hung_up: int = 0


class Visitor:
    """One visitor, whose values all begin with its number."""

    __slots__ = ("_begun", "_came", "_cookie", "_pauses", "crowd", "manner", "number", "possible")

    def __init__(self, number: int, manner: Manner, crowd: Crowd) -> None:
        self.number = number
        self.manner = manner
        self.crowd = crowd
        self.possible: Sequence[int] = (2,) if manner.changes else (0,)
        """How many of its two changes may be stored: known, but for a visitor who has hung up."""
        self._cookie: bytes | None = None
        self._begun = 0.0
        self._came = False
        self._pauses = manner.pauses

    # --- for the shop --------------------------------------------------------------------------

    def tag(self, part: str, turn: int = 0) -> str:
        """Return the value that this visitor writes there."""
        return tag(self.number, part, turn)

    def look(self, where: str, *allowed: Mapping[str, Any]) -> None:
        """Look at the session from here; it must be in one of the allowed states."""
        self.judge(where, dict(session), *allowed)

    def judge(self, where: str, seen: Mapping[str, Any], *allowed: Mapping[str, Any]) -> None:
        """Judge what was seen of the session elsewhere. Not for other threads, which only look."""
        self.crowd.findings.look(where, self.number, seen, allowed)

    async def pause(self) -> None:
        """Let others go first, for up to two steps of the loop; half of the times, for none."""
        bits = self._pauses & 3
        self._pauses = self._pauses >> 2 | bits << 22
        for _ in range(bits - 1):
            await anyio.lowlevel.checkpoint()

    async def hold(self) -> None:
        """Keep this request open until all visitors have one open."""
        self._came = True
        before = time.perf_counter()
        await self.crowd.gate.pass_through()
        self._begun += time.perf_counter() - before  # it was not the request that took this long

    # --- the visit -----------------------------------------------------------------------------

    async def visit(self) -> None:
        """Come, perhaps change something, look again and leave."""
        if not await self._come("/arrive"):
            return
        self._look_outside()
        if self.manner.hangs_up_after is not None:
            await self._change_and_hang_up(self.manner.hangs_up_after)
        elif self.manner.changes:
            await self._request("/change")
        await self._request("/leave")

    async def stay(self) -> None:
        """Come and be held, as one who has no session."""
        await self._come("/hold")

    async def _come(self, path: str) -> bool:
        answered = await self._request(path)
        if not self._came:
            self.crowd.gate.give_up()
        return answered

    def _look_outside(self) -> None:
        try:
            current()
        except NoActiveSession:
            return
        self.crowd.findings.leak("between two requests", self.number)

    async def _change_and_hang_up(self, steps: int) -> None:
        was_cut_off = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_after, steps, tasks.cancel_scope)
            await self._request("/change")
            was_cut_off = False
            tasks.cancel_scope.cancel()
        if was_cut_off:
            self.crowd.hung_up += 1
            self.possible = (0, 1, 2)

    async def _request(self, path: str) -> bool:
        """Send one request; return whether it was answered with a 200."""
        connection = _Connection()
        headers = [] if self._cookie is None else [(b"cookie", self._cookie)]
        scope = {**_SCOPE, "path": path, "headers": headers, "visitor": self}
        failure: object = None
        self._begun = time.perf_counter()
        try:
            await self.crowd.app(scope, connection.receive, connection.send)
        except* (MinisessionError, LookupError) as errors:
            failure = repr(errors.exceptions[0])
        finally:
            self.crowd.done += 1
        if failure is None and not connection.is_answered:
            failure = f"answered with {connection.status or 'nothing'}"
        if failure is not None:
            self.crowd.findings.fail(path, self.number, failure)
            return False
        self.crowd.latencies.append(time.perf_counter() - self._begun)
        self._cookie = connection.cookie_after(self._cookie)
        return True


class _Connection:
    """The server's half of one request: no body comes in, and what goes out is read."""

    __slots__ = ("_is_complete", "_set_cookie", "status")

    def __init__(self) -> None:
        self.status = 0
        self._is_complete = False
        self._set_cookie: bytes | None = None

    async def receive(self) -> Message:
        """Say that there is no body."""
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        """Take a message of the answer, as a server that has to wait for the network does."""
        await anyio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._set_cookie = dict(message["headers"]).get(b"set-cookie")
        else:
            self._is_complete = not message.get("more_body", False)

    @property
    def is_answered(self) -> bool:
        """Whether all of a good answer has come."""
        return self.status == 200 and self._is_complete

    def cookie_after(self, cookie: bytes | None) -> bytes | None:
        """Return the Cookie field that a browser sends next, which so far sent `cookie`."""
        return cookie if self._set_cookie is None else self._set_cookie.partition(b";")[0]


_SCOPE: Final[Mapping[str, Any]] = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "https",
    "query_string": b"",
    "root_path": "",
    "server": ("shop.example", 443),
    "client": ("192.0.2.1", 1),
}


async def _cancel_after(steps: int, scope: CancelScope) -> None:
    for _ in range(steps):
        await anyio.lowlevel.checkpoint()
    scope.cancel()
