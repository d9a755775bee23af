"""`Storm`: a store behind a bad network, and visitors who know what it may hold.

Of what is asked of the store, a part fails before it takes effect, a part after, and a part is
slow; which, is drawn from a seed. A visitor knows, for each key, the set of values that the store
can have: one after an answer, more after a failure that may or may not have been one.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Sequence

import anyio
import anyio.lowlevel

from minisession import (
    SaveOutcomeUnknown,
    SessionGone,
    SessionMiddleware,
    StoreError,
    StoreUnavailable,
    session,
)
from minisession.abc import Change, Outcome, Record, Store
from tests.asgi_client import Answer, Browser, Receive, Scope, Send, ask, obey_lifespan, respond
from tests.remote_store import Fault, RemoteStore

KEYS = ("a", "b", "n", "user")
BEFORE = (Fault.REFUSES, Fault.UNSURE_BEFORE)
AFTER = (Fault.UNSURE_AFTER, Fault.BREAKS)
SHARE = 0.05  # of the operations: fails before its effect; the same after it, and is slow


class Storm(RemoteStore):
    """A remote store in bad weather.

    Attributes:
        operations: how much was asked of it.
        faulted: how much of that failed or was slow.
        is_over: nothing fails any more.
    """

    def __init__(self, inner: Store | None, seed: int) -> None:
        super().__init__(inner)
        self.random = random.Random(seed)
        self.operations = 0
        self.faulted = 0
        self.is_over = False

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        self.commits.clear()
        return await super().commit(changes, now)

    async def load(self, handle: str, now: float) -> Record | None:
        if self.next_fault() is not Fault.NONE:
            raise StoreUnavailable("the connection broke")
        await self._pass_slowly()
        return await super().load(handle, now)

    def next_fault(self) -> Fault:
        self.operations += 1
        if self.is_over:
            return Fault.NONE
        drawn = self.random.random()
        self.faulted += drawn < 2 * SHARE
        if drawn < SHARE:
            return self.random.choice(BEFORE)
        return self.random.choice(AFTER) if drawn < 2 * SHARE else Fault.NONE

    async def _work(self, job: object) -> None:
        await self._pass_slowly()
        await super()._work(job)  # type: ignore[arg-type]

    async def _pass_slowly(self) -> None:
        if self.is_over or self.random.random() >= SHARE:
            return
        self.faulted += 1
        for _ in range(self.random.randrange(1, 30)):
            await anyio.lowlevel.checkpoint()


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Do what the path says; answer what the session held before it, and after it."""
    if scope["type"] == "lifespan":
        await obey_lifespan(receive, send)
        return
    _, what, value = scope["path"].split("/")
    before = session.all()
    try:
        await _do(what, int(value), send)
    except SessionGone:
        await respond(send, b"gone", 409)
        return
    body = repr((before, session.all())).encode()
    if what == "stream":
        await send({"type": "http.response.body", "body": body})
    else:
        await respond(send, body)


async def _do(what: str, value: int, send: Send) -> None:
    match what:
        case "put":
            session["a"], session["b"] = value, [value]
        case "drop":
            session.pop("a", None)
            session["b"] = []
        case "save":
            session["a"] = value
            try:
                await session.save()
            except SaveOutcomeUnknown:
                await session.refresh()
        case "count":
            await session.update("n", lambda n: n + 1, default=0)
        case "login":
            session.regenerate()
            session["user"] = value
        case "logout":
            session.destroy()
        case "stream":
            session["a"] = value
            await send({"type": "http.response.start", "status": 200, "headers": []})
            session["a"] = -value


OPERATIONS = ["read", "put", "put", "drop", "save", "count", "count", "login", "logout", "stream"]
Values = dict[str, object]


class Visitor:
    """One browser, one request at a time, and what it knows."""

    def __init__(self, app: SessionMiddleware, seed: int) -> None:
        self.app = app
        self.random = random.Random(seed)
        self.browser = Browser(app)
        self.dead: list[str] = []
        self.requests = 0
        self.refusals = 0
        self._forget()

    def _forget(self) -> None:
        self.possible: dict[str, list[object]] = {key: [None] for key in KEYS}
        self.may_be_over = False  # a login or logout that failed has perhaps ended the id

    async def visit(self) -> None:
        """Send a request, and compare the answer with what it can be."""
        what = self.random.choice(OPERATIONS)
        self.requests += 1
        value = self.requests
        old, answer = self.browser.id, Answer()
        try:
            await self.browser.get(f"/{what}/{value}", into=answer)
        except StoreError:  # from a write after the headers, which nothing can take back
            assert what == "stream"
            assert answer.is_complete == (answer.status == 503)
            self.browser.keep(answer)
        match answer.status, answer.is_complete:
            case 200, True:
                before, after = ast.literal_eval(answer.body.decode())
                self._succeeded(what, old, before, after)
            case 409, True:
                assert self.may_be_over
                self._is_over(old)
            case (503, True) | (200, False):
                assert answer.status == 200 or not answer.cookies
                self.refusals += 1
                self._failed(what, old, value)
            case _:
                raise AssertionError(answer.messages)

    def _succeeded(self, what: str, old: str | None, before: Values, after: Values) -> None:
        if self.may_be_over and not before:
            self._is_over(old)
            if self.browser.id is None:
                return
        for key in KEYS:
            assert before.get(key) in self.possible[key], (key, before, self.possible)
        self.may_be_over = False
        self.possible = {key: [after.get(key)] for key in KEYS}
        assert not after or self.browser.id is not None
        if old is not None and self.browser.id != old:
            assert what in ("login", "logout") or not before
            self.dead.append(old)

    def _is_over(self, id: str | None) -> None:
        """Give up an id that has ended; a browser that keeps the one before sees nothing."""
        assert id is not None
        self.dead.append(id)
        self._forget()
        if self.browser.id == id:
            self.browser.id = None

    def _failed(self, what: str, old: str | None, value: int) -> None:
        if self.browser.id is None:  # whatever was stored, nobody knows its id
            self._forget()
            return
        if old is not None and self.browser.id != old:  # began anew, and failed after the headers
            assert self.may_be_over
            self._is_over(old)
        counts = [n + 1 if isinstance(n, int) else 1 for n in self.possible["n"]]
        news: dict[str, dict[str, list[object]]] = {
            "put": {"a": [value], "b": [[value]]},
            "drop": {"a": [None], "b": [[]]},
            "save": {"a": [value]},
            "stream": {"a": [value, -value]},
            "login": {"user": [value]},
            "count": {"n": [*counts]},
        }
        for key, values in news.get(what, {}).items():
            self.possible[key] += values
        self.may_be_over |= what in ("login", "logout")

    async def look_at_the_dead(self, some: Callable[[list[str]], list[str]]) -> int:
        """Present ids that have ended: none of them may show anything."""
        ids = some(self.dead)
        for id in ids:
            answer = await ask(self.app, "/read/0", cookie=f"{self.browser.name}={id}")
            assert answer.status == 503 or answer.body == b"({}, {})"
            assert answer.cookies == []
        return len(ids)
