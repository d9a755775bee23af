"""One request after the other, in every order: the library does what a plain model says.

Browsers with cookies send requests to an application under the real middleware; in each, any
operations on `session`, one by one. Time passes, requests fail, sessions are revoked, ids are
stolen, the server restarts. The model knows dicts and ends of time, and nothing of journals,
epochs and flights. What requests at the same time do to each other is tested elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from operator import methodcaller
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from minisession import (
    CookieTooLate,
    SessionConfig,
    SessionGone,
    SessionManager,
    SessionMiddleware,
    session,
)
from minisession._codec import decode_many
from minisession.abc import Store
from minisession.stores.memory import MemoryStore
from minisession.stores.sqlite import SQLiteStore

from .asgi_client import COOKIE, Answer, ask
from .clock import Clock
from .effort import Tally, effort

IDLE = 600.0  # seconds
ABSOLUTE = 1500.0
GRACE = 30.0
TOUCH_BELOW = 19 / 20  # of the idle timeout; DESIGN section 4, Expiry

# --- the model -----------------------------------------------------------------------------------


@dataclass
class Kept:
    """A session in the store."""

    id: str
    data: dict[str, Any]
    created: float
    expires: float
    cookie_until: float = 0.0
    principal: str | None = None
    replaced_id: str | None = None
    replaced_loads: bool = False
    grace_until: float = 0.0
    changed_since: set[str] = field(default_factory=set)
    cleared_since: bool = False


Step = tuple[Any, ...]
"""A write that is not stored yet: ("put", key, value), ("drop", key), ("clear",),
("principal", name), ("create", id), ("rotate", id, old id goes on loading),
("destroy", handle, by a borrower)."""


@dataclass
class Visit:
    """One request, as the application sees its session."""

    presented: str | None
    arrived: float
    state: str = "unread"  # none, live, void
    handle: str | None = None
    id: str | None = None
    borrowed: bool = False
    superseded: bool = False
    data: dict[str, Any] = field(default_factory=dict)
    principal: str | None = None
    pending: list[Step] = field(default_factory=list)
    changed_inside: set[str] = field(default_factory=set)
    known: Kept | None = None  # the store's, when it was last read or written
    issued: bool = False
    destroyed: bool = False
    started: bool = False


def handle_of(id: str) -> str:
    return id.partition(".")[0]


class Model:
    """What the store should hold, and what the current request should see."""

    def __init__(self, config: SessionConfig, *, flushes: bool) -> None:
        self.config = config
        self.flushes = flushes and config.on_error == "commit"
        self.kept: dict[str, Kept] = {}

    def living(self, handle: str | None, now: float) -> Kept | None:
        kept = self.kept.get(handle or "")
        return kept if kept is not None and kept.expires > now else None

    def deadline(self, created: float, now: float) -> float:
        end = now + IDLE
        return end if self.config.absolute is None else min(end, created + self.config.absolute)

    def max_age(self, created: float, now: float) -> int:
        seconds = 2 * IDLE
        if self.config.absolute is not None:
            seconds = min(seconds, created + self.config.absolute - now)
        return max(1, math.ceil(seconds))

    def load(self, visit: Visit, now: float) -> None:
        """The first touch."""
        if visit.state != "unread":
            return
        visit.state = "none"
        kept = self.living(handle_of(visit.presented or ""), now)
        if kept is None:
            return
        in_grace = visit.arrived < kept.grace_until
        visit.borrowed = in_grace and kept.replaced_loads and visit.presented == kept.replaced_id
        if visit.presented == kept.id or visit.borrowed:
            visit.state, visit.id, visit.handle = "live", visit.presented, handle_of(kept.id)
            visit.data, visit.principal = deepcopy(kept.data), kept.principal
            visit.known = deepcopy(kept)
        elif in_grace:
            visit.state, visit.superseded = "void", True

    def note(self, visit: Visit, steps: tuple[Step, ...], now: float) -> None:
        """Write something; what is written without an await in between becomes one change."""
        if visit.state == "live" and steps:
            visit.pending.extend(steps)
            if self.flushes:
                self.commit(visit, now, issuing=False, looks=False)

    def commit(self, visit: Visit, now: float, *, issuing: bool, looks: bool = True) -> None:
        """Store what is pending, or what comes before an id that only an answer can carry."""
        if looks and visit.state == "live":
            visit.pending += [("put", k, deepcopy(visit.data[k])) for k in visit.changed_inside]
            visit.changed_inside.clear()
        first = next(
            (i for i, step in enumerate(visit.pending) if step[0] in ("create", "rotate")), None
        )
        end = len(visit.pending) if issuing or first is None else first
        steps, visit.pending = visit.pending[:end], visit.pending[end:]
        while steps and steps[0][0] == "destroy":  # before all that is left of a request
            _, handle, borrowed = steps.pop(0)
            self._destroy(visit, handle, now, borrowed=borrowed)
        if steps and not visit.superseded:
            self._write(visit, steps, now)

    def _destroy(self, visit: Visit, handle: str, now: float, *, borrowed: bool) -> None:
        kept = self.living(handle, now)
        if kept is None:
            return
        if borrowed and not (now < kept.grace_until and kept.replaced_loads):
            self.void(visit, superseded=True)
        else:
            del self.kept[handle]

    def _write(self, visit: Visit, steps: list[Step], now: float) -> None:
        if steps[0][0] == "create":
            id = visit.id or ""
            self.kept[handle_of(id)] = Kept(id, {}, created=now, expires=self.deadline(now, now))
            visit.issued = True
        kept = self.living(visit.handle, now)
        if kept is None or (visit.borrowed and not self._counts(kept, steps, now)):
            self.void(visit, superseded=kept is not None)
            return
        for step in steps:
            self._apply(kept, step, now, borrowed=visit.borrowed)
        if any(step[0] == "rotate" for step in steps):
            visit.issued = True
            named = {step[1] for step in steps if step[0] in ("put", "drop")}
            kept.changed_since |= named
            kept.cleared_since = any(step[0] == "clear" for step in steps)
        if not visit.borrowed:
            kept.expires = self.deadline(kept.created, now)
        visit.known = replace(deepcopy(kept), expires=self.deadline(kept.created, now))

    def _counts(self, kept: Kept, steps: list[Step], now: float) -> bool:
        """The rule for what was loaded with the replaced id."""
        named = {step[1] for step in steps if step[0] in ("put", "drop")}
        return (
            now < kept.grace_until
            and all(step[0] in ("put", "drop") for step in steps)
            and not kept.cleared_since
            and not named & kept.changed_since
        )

    def _apply(self, kept: Kept, step: Step, now: float, *, borrowed: bool) -> None:
        match step:
            case ("put", key, value):
                kept.data[key] = value
            case ("drop", key):
                kept.data.pop(key, None)
            case ("clear",):
                kept.data.clear()
            case ("principal", name):
                kept.principal = name
            case ("rotate", id, loads):
                kept.replaced_id, kept.id, kept.replaced_loads = kept.id, id, loads
                kept.grace_until = now + GRACE
                kept.changed_since, kept.cleared_since = set(), False
        if step[0] in ("create", "rotate", "renew"):
            kept.cookie_until = now + self.max_age(kept.created, now)
        if not borrowed and step[0] in ("put", "drop"):
            kept.changed_since.add(step[1])
        kept.cleared_since = kept.cleared_since or step[0] == "clear"

    def void(self, visit: Visit, *, superseded: bool) -> None:
        visit.state, visit.superseded, visit.id = "void", superseded, None
        visit.pending.clear()
        visit.changed_inside.clear()

    def roll_back(self, visit: Visit) -> None:
        """Drop what is unsaved, but for a logout: the session is what the store had of it."""
        visit.changed_inside.clear()
        visit.pending = [step for step in visit.pending if step[0] == "destroy"]
        if visit.state == "live" and visit.known is None:
            visit.state, visit.id, visit.handle = "none", None, None
            visit.data, visit.principal = {}, None
        elif visit.state == "live" and visit.known is not None:
            visit.data, visit.principal = deepcopy(visit.known.data), visit.known.principal
            visit.id = visit.presented if visit.borrowed else visit.known.id

    def touch(self, visit: Visit, now: float) -> None:
        """The end of a request in which the session was used."""
        if visit.state != "live" or visit.borrowed or not self.config.refresh_on_read:
            return
        kept = self.living(visit.handle, now)
        left = 0.0 if visit.known is None else visit.known.expires - now
        if kept is not None and left < TOUCH_BELOW * IDLE:
            kept.expires = max(kept.expires, self.deadline(kept.created, now))


# --- the application -----------------------------------------------------------------------------

Use = Callable[[], Any]


class Crash(Exception):
    """What a handler raises."""


class Request:
    """One request whose handler does what it is told, step by step, in its own task."""

    def __init__(self, portal: BlockingPortal, app: SessionMiddleware, cookie: str | None) -> None:
        self._portal = portal
        self.answer = Answer()
        self._todo, self._orders = portal.call(_stream)
        self._done, self._results = portal.call(_stream)
        app.app = self._handle
        self._task = portal.start_task_soon(self._run, app, cookie)

    async def _run(self, app: SessionMiddleware, cookie: str | None) -> None:
        await ask(app, cookie=cookie, into=self.answer)

    async def _handle(self, _scope: Any, _receive: Any, send: Any) -> None:
        while True:
            order = await self._orders.receive()
            if order == "end":
                await send({"type": "http.response.body", "body": b""})
                return
            if order == "crash":
                raise Crash
            if isinstance(order, int):
                await send({"type": "http.response.start", "status": order, "headers": []})
                await self._done.send((None, None))
            else:
                await self._done.send(await _outcome(order))

    def do(self, use: Use) -> Any:
        """Let the handler use the session; return what that returns, or raise what it raises."""
        value, error = self._portal.call(self._ask, use)
        if error is not None:
            raise error
        return value

    def start(self, status: int) -> None:
        """Let the handler send the head of its response."""
        self._portal.call(self._ask, status)

    def end(self, order: str) -> None:
        """Let the handler return, or raise."""
        self._portal.call(self._todo.send, order)
        if order == "crash":
            with pytest.raises(Crash):
                self._task.result()
        else:
            self._task.result()
        for stream in (self._todo, self._orders, self._done, self._results):
            stream.close()

    async def _ask(self, order: Use | int) -> tuple[Any, Exception | None]:
        await self._todo.send(order)
        result: tuple[Any, Exception | None] = await self._results.receive()
        return result


def _call(method: str) -> Use:
    return partial(methodcaller(method), session)


async def _stream() -> Any:
    return anyio.create_memory_object_stream[Any](1)


async def _outcome(use: Use) -> tuple[Any, Exception | None]:
    try:
        value = use()
        return (await value if isinstance(value, Awaitable) else value), None
    except Exception as error:
        return None, error


# --- the machine ---------------------------------------------------------------------------------

BROWSERS = ("ada", "bob")
keys = st.sampled_from(["a", "b", "c"])
values = st.one_of(st.lists(st.integers(0, 9), max_size=2), st.integers(0, 9), st.text(max_size=2))
pauses = st.sampled_from(
    [0.0, 0.0, 0.0, 10.0, 29.0, 31.0, 100.0, 100.0, 299.0, 301.0, 599.0, 600.0]
)
operations = st.one_of(
    st.tuples(st.just("put"), keys, values),
    st.tuples(st.just("put"), keys, values),
    st.tuples(st.just("change_inside"), keys, st.integers(0, 9)),
    st.tuples(st.just("change_inside"), keys, st.integers(0, 9)),
    st.tuples(st.just("setdefault"), keys, values),
    st.tuples(st.just("delete"), keys),
    st.tuples(st.just("pop"), keys),
    st.tuples(st.just("update"), st.dictionaries(keys, values, max_size=3)),
    st.tuples(st.just("clear")),
    st.tuples(st.just("name_the_principal"), st.sampled_from([None, "user:1", "user:2"])),
    st.tuples(st.just("regenerate"), st.booleans()),
    st.tuples(st.just("destroy")),
    st.tuples(st.just("save")),
    st.tuples(st.just("refresh")),
    st.tuples(st.just("update_atomically"), keys, st.integers(0, 9)),
    st.tuples(st.just("look_at_everything")),
    st.tuples(st.just("look_at_everything")),
    st.tuples(st.just("time_passes"), pauses),
    st.tuples(st.just("look_at_everything")),
)
several = st.lists(operations, min_size=1, max_size=6)
meanwhile = st.one_of(
    st.just(()),
    st.just(()),
    st.just(()),
    st.just(()),
    st.tuples(st.just("restart")),
    st.tuples(st.just("sweep")),
    st.tuples(st.just("revoke"), st.integers(0, 9)),
    st.tuples(st.just("take_over_an_id"), st.sampled_from(BROWSERS), st.integers(0, 9)),
)
"""What happens between two requests. Not rules of their own: most steps are to be requests."""
statuses = st.sampled_from([200, 200, 303, 500])

open_visit = precondition(lambda self: self.visit is not None)
before_the_start = precondition(lambda self: self.visit is not None and not self.visit.started)
between_requests = precondition(lambda self: self.visit is None)


class Sequence(RuleBasedStateMachine):
    """Drives the library and the model with the same operations."""

    backend = "asyncio"
    persistent = False
    begun: ClassVar[list[str]] = []

    @initialize(
        absolute=st.booleans(),
        refresh_on_read=st.booleans(),
        on_error=st.sampled_from(["commit", "rollback"]),
        flushes=st.booleans(),
    )
    def begin_serving(
        self, absolute: bool, refresh_on_read: bool, on_error: str, flushes: bool
    ) -> None:
        self.config = SessionConfig(
            cache_expire=IDLE / 60,
            absolute_timeout=ABSOLUTE / 60 if absolute else None,
            rotation_grace=GRACE,
            refresh_on_read=refresh_on_read,
            on_error=on_error,
        )
        self.flushes = flushes
        self.clock = Clock()
        self.model = Model(self.config, flushes=flushes)
        self.portal = self.stack.enter_context(start_blocking_portal(self.backend))
        self.folder = Path(self.stack.enter_context(TemporaryDirectory()))
        self.memory = MemoryStore()
        self.serve()
        self.jars: dict[str, tuple[str, float]] = {}
        self.seen_ids: list[str] = []
        for browser in BROWSERS:
            self.send_a_request(browser)
            self.put("a", ["from the start"])
            self.end_the_response()

    def __init__(self) -> None:
        super().__init__()
        self.begun.append(self.backend)
        self.stack, self.server = ExitStack(), ExitStack()
        self.visit: Visit | None = None
        self.request: Request | None = None
        self.browser = ""

    def serve(self) -> None:
        self.store: Store = (
            SQLiteStore(self.folder / "sessions.db") if self.persistent else self.memory
        )
        self.app = SessionMiddleware(_no_app, self.store)
        self.app.manager = SessionManager(self.store, self.config, clock=self.clock)
        lifespan: AbstractAsyncContextManager[object] = (
            self.app.manager if self.flushes else self.store
        )
        self.server.enter_context(self.portal.wrap_async_context_manager(lifespan))

    def teardown(self) -> None:
        with self.stack, self.server:
            if self.request is not None:
                self.request.end(
                    "end" if self.visit is not None and self.visit.started else "crash"
                )

    # --- requests

    @between_requests
    @rule(browser=st.sampled_from(BROWSERS), happens=meanwhile, pause=pauses)
    def send_a_request(self, browser: str, happens: Step = (), pause: float = 0.0) -> None:
        self.time_passes(pause)
        if happens:
            getattr(self, happens[0])(*happens[1:])
        self.browser = browser
        id, until = self.jars.get(browser, (None, math.inf))
        if until <= self.clock():
            del self.jars[browser]
            id = None
        self.visit = Visit(id, self.clock())
        cookie = None if id is None else f"{COOKIE}={id}"
        self.request = Request(self.portal, self.app, cookie)
        # The exchange notes when its request arrived: the handler runs before time passes.
        self.request.do(lambda: None)

    @open_visit
    @rule(steps=several)
    def use_the_session(self, steps: list[Step]) -> None:
        for name, *arguments in steps:
            getattr(self, name)(*arguments)
            self.the_store_holds_what_the_model_says()

    def do(self, use: Use) -> Any:
        assert self.request is not None
        return self.request.do(use)

    @property
    def now_visiting(self) -> Visit:
        assert self.visit is not None
        self.model.load(self.visit, self.clock())
        return self.visit

    def write(self, use: Use, *steps: Step, starts: bool = True) -> Any:
        """Do something that writes, in the library and in the model."""
        visit = self.now_visiting
        if visit.state == "none" and starts:
            if visit.started:
                with pytest.raises(CookieTooLate):
                    self.do(use)
                return None
            result = self.do(use)
            visit.id = self.new_id()
            visit.handle, visit.state = handle_of(visit.id), "live"
            visit.known, visit.borrowed = None, False
            visit.data, visit.principal = {}, None
            visit.pending.append(("create", visit.id))
        else:
            result = self.do(use)
        for step in steps:
            self._show(visit, step)
        self.model.note(visit, steps, self.clock())
        return result

    def new_id(self) -> str:
        id = self.do(lambda: session.id)
        assert isinstance(id, str)
        assert id not in self.seen_ids
        self.seen_ids.append(id)
        return id

    def _show(self, visit: Visit, step: Step) -> None:
        match step:
            case ("put", key, value):
                visit.data[key] = deepcopy(value)
                visit.changed_inside.discard(key)
            case ("drop", key):
                visit.data.pop(key)
                visit.changed_inside.discard(key)
            case ("clear",):
                visit.data.clear()
                visit.changed_inside.clear()
            case ("principal", name):
                visit.principal = name

    # --- operations

    def put(self, key: str, value: Any) -> None:
        self.write(lambda: session.set(key, deepcopy(value)), ("put", key, value))

    def setdefault(self, key: str, value: Any) -> None:
        if key in self.now_visiting.data:
            assert self.do(lambda: deepcopy(session.setdefault(key, 0))) == self.visit_data[key]
        else:
            self.write(lambda: session.setdefault(key, deepcopy(value)), ("put", key, value))

    @property
    def visit_data(self) -> dict[str, Any]:
        assert self.visit is not None
        return self.visit.data

    def change_inside(self, key: str, item: int) -> None:
        visit = self.now_visiting
        if type(visit.data.get(key)) is not list:
            assert self.do(lambda: type(session.get(key))) is type(visit.data.get(key))
            return
        self.do(lambda: session[key].append(item))
        visit.data[key].append(item)
        if visit.state == "live":
            visit.changed_inside.add(key)

    def delete(self, key: str) -> None:
        if key not in self.now_visiting.data:
            with pytest.raises(KeyError):
                self.do(lambda: session.__delitem__(key))
        else:
            self.write(lambda: session.__delitem__(key), ("drop", key), starts=False)

    def pop(self, key: str) -> None:
        if key not in self.now_visiting.data:
            assert self.do(lambda: session.pop(key, "missing")) == "missing"
        else:
            expected = self.visit_data[key]
            assert self.write(lambda: session.pop(key), ("drop", key), starts=False) == expected

    def update(self, values: dict[str, Any]) -> None:
        def use() -> Any:
            return session.update(deepcopy(values))

        if values:
            self.write(use, *[("put", key, value) for key, value in values.items()])
        else:  # which does not even load
            self.do(use)

    def clear(self) -> None:
        steps = [] if self.now_visiting.state == "none" else [("clear",)]
        self.write(_call("clear"), *steps, starts=False)

    def name_the_principal(self, name: str | None) -> None:
        nothing = name is None and self.now_visiting.state == "none"
        steps = [] if nothing else [("principal", name)]
        self.write(lambda: setattr(session, "principal", name), *steps, starts=not nothing)

    def regenerate(self, loads: bool) -> None:
        visit = self.now_visiting
        issuing = [step for step in visit.pending if step[0] in ("create", "rotate")]
        if visit.state != "live" or issuing:
            self.do(lambda: session.regenerate(not loads))
            visit.pending = [
                ("rotate", step[1], step[2] and loads) if step[0] == "rotate" else step
                for step in visit.pending
            ]
        elif visit.started:
            with pytest.raises(CookieTooLate):
                self.do(lambda: session.regenerate(not loads))
        else:
            self.do(lambda: session.regenerate(not loads))
            visit.id = self.new_id()
            assert handle_of(visit.id) == visit.handle
            visit.pending.append(("rotate", visit.id, loads))

    def destroy(self) -> None:
        visit = self.now_visiting
        self.do(_call("destroy"))
        if visit.superseded:
            return
        ends_it = visit.state == "live" and visit.known is not None
        ended_before = [step for step in visit.pending if step[0] == "destroy"]
        visit.pending = [
            *ended_before,
            *([("destroy", visit.handle, visit.borrowed)] if ends_it else []),
        ]
        visit.state, visit.id, visit.handle = "none", None, None
        visit.destroyed, visit.issued = True, False
        visit.data, visit.principal = {}, None
        visit.changed_inside.clear()
        if self.model.flushes:
            self.model.commit(visit, self.clock(), issuing=False, looks=False)

    def save(self) -> None:
        visit = self.visit
        assert visit is not None  # a save alone does not load
        self.model.commit(visit, self.clock(), issuing=True)
        self._await_or_gone(_call("save"))

    def refresh(self) -> None:
        visit = self.now_visiting
        stored = visit.state == "live" and visit.known is not None
        kept = self.model.living(visit.handle, self.clock())
        replaced = visit.borrowed and kept is not None and kept.replaced_id != visit.presented
        if stored and (kept is None or replaced):
            self.model.void(visit, superseded=kept is not None)
        elif stored:
            # What was handed out before is not watched any more, but was looked at once more.
            pending = [("put", k, deepcopy(visit.data[k])) for k in sorted(visit.changed_inside)]
            visit.changed_inside.clear()
            visit.pending += pending
            assert kept is not None
            visit.known = deepcopy(kept)
            if self.model.flushes:
                self.model.commit(visit, self.clock(), issuing=False, looks=False)
        self._await_or_gone(_call("refresh"))

    def _await_or_gone(self, use: Use) -> None:
        assert self.visit is not None
        if self.visit.state == "void":
            with pytest.raises(SessionGone):
                self.do(use)
        else:
            self.do(use)

    def update_atomically(self, key: str, item: int) -> None:
        visit, now = self.now_visiting, self.clock()
        if visit.state == "none" and visit.started:
            self.model.commit(visit, now, issuing=True)

            def start_too_late() -> Any:
                return session.update(key, lambda _: item)

            with pytest.raises(CookieTooLate if visit.state == "none" else SessionGone):
                self.do(start_too_late)
            return
        self.model.commit(visit, now, issuing=True)
        before = visit.data.get(key, "nothing")
        after = [before, item]
        step = ("put", key, after)
        if visit.state == "none":
            pending = self.write(
                lambda: session.update(key, lambda old: [old, item], default="nothing"), step
            )
            assert pending == after
            self.model.commit(visit, now, issuing=True)
            return
        if visit.state == "live":
            self.model._write(visit, [step], now)
            if visit.state == "live":
                self._show(visit, step)
        self._await_or_gone(lambda: session.update(key, lambda old: [old, item], default="nothing"))

    def look_at_everything(self) -> None:
        visit = self.now_visiting

        def everything() -> tuple[Any, ...]:
            return (
                session.all(),
                len(session),
                "a" in session,
                session.id,
                session.is_started,
                session.principal,
            )

        assert self.do(everything) == (
            visit.data,
            len(visit.data),
            "a" in visit.data,
            visit.id,
            visit.state == "live",
            visit.principal,
        )

    # --- the response

    @before_the_start
    @rule(status=statuses)
    def start_the_response(self, status: int) -> None:
        visit = self.visit
        assert visit is not None
        assert self.request is not None
        if status >= 500 and self.config.on_error == "rollback":
            self.model.roll_back(visit)
        self.request.start(status)
        self._expect_a_cookie(visit, self.request.answer)

    def _expect_a_cookie(self, visit: Visit, answer: Answer) -> None:
        """Seal the model's headers, and compare the Set-Cookie of the answer with it."""
        now, config = self.clock(), self.config
        visit.started = True
        touched = visit.state != "unread"
        written = bool(visit.pending)
        issuing = any(step[0] in ("create", "rotate") for step in visit.pending)
        due = False
        if visit.state == "live" and visit.known is not None and not (visit.borrowed or issuing):
            left = visit.known.cookie_until - now
            due = left < self.model.max_age(visit.known.created, now) / 2
            outlives_it = visit.known.expires > visit.known.cookie_until
            due = due and (written or outlives_it or config.refresh_on_read)
        self.model.commit(visit, now, issuing=True)
        sets = visit.state == "live" and (visit.issued or due)
        if sets:
            self.model._write(visit, [("renew",)], now)
            sets = visit.state == "live"
        if sets:
            self._keep_the_cookie(visit, answer, now)
        elif touched and visit.state == "none" and visit.destroyed and visit.presented:
            [line] = answer.cookies
            assert line.startswith(f"{COOKIE}=;")
            del self.jars[self.browser]
        else:
            assert answer.cookies == []

    def _keep_the_cookie(self, visit: Visit, answer: Answer, now: float) -> None:
        [line] = answer.cookies
        attributes = dict(part.partition("=")[::2] for part in line.split("; "))
        kept = self.model.kept[visit.handle or ""]
        assert attributes[COOKIE] == visit.id == kept.id
        assert int(attributes["Max-Age"]) == self.model.max_age(kept.created, now)
        self.jars[self.browser] = kept.id, now + int(attributes["Max-Age"])
        assert self.jars[self.browser][1] >= kept.expires

    @open_visit
    @rule()
    def end_the_response(self) -> None:
        visit = self.visit
        assert visit is not None
        if not visit.started:
            self.start_the_response(200)
        self._finish("end")

    @open_visit
    @rule()
    def crash(self) -> None:
        visit = self.visit
        assert visit is not None
        self._after_an_exception(visit)
        self._finish("crash")

    def _after_an_exception(self, visit: Visit) -> None:
        if self.config.on_error == "rollback":
            self.model.roll_back(visit)
        self.model.commit(visit, self.clock(), issuing=False)
        if visit.pending:  # an id that no answer carries: what came before it is stored
            visit.pending.clear()
            self.model.roll_back(visit)

    def _finish(self, order: str) -> None:
        visit, request = self.visit, self.request
        assert visit is not None
        assert request is not None
        answers = order == "crash" and visit.issued and not visit.started
        self.visit = self.request = None
        request.end(order)
        if answers:  # nobody else can deliver the id that is stored already
            assert request.answer.status == 500
            self._expect_a_cookie(visit, request.answer)
        elif order == "end" and visit.state != "unread":
            self.model.commit(visit, self.clock(), issuing=False)
        if visit.state != "unread":
            self.model.touch(visit, self.clock())

    # --- whole requests

    @between_requests
    @rule(
        browser=st.sampled_from(BROWSERS),
        happens=meanwhile,
        pause=pauses,
        before=several,
        status=statuses,
        after=several,
        ends=st.sampled_from(["end", "end", "end", "crash early", "crash late"]),
    )
    def send_a_whole_request(
        self,
        browser: str,
        happens: Step,
        pause: float,
        before: list[Step],
        status: int,
        after: list[Step],
        ends: str,
    ) -> None:
        self.send_a_request(browser, happens, pause)
        self.use_the_session(before)
        if ends != "crash early":
            self.start_the_response(status)
            self.use_the_session(after)
        if ends == "end":
            self.end_the_response()
        else:
            self.crash()

    @between_requests
    @rule(
        browser=st.sampled_from(BROWSERS),
        loads=st.sampled_from([True, True, False]),
        before=several,
        pause=st.sampled_from([0.0, 10.0, 29.0, 31.0]),
        after=several,
    )
    def regenerate_while_another_has_the_old_id(
        self, browser: str, loads: bool, before: list[Step], pause: float, after: list[Step]
    ) -> None:
        other = next(name for name in BROWSERS if name != browser)
        self.send_a_request(browser)
        old_id = self.now_visiting.id
        self.regenerate(loads)
        self.use_the_session(before)
        self.end_the_response()
        if old_id is not None:
            self.jars[other] = old_id, math.inf
        self.send_a_request(other, pause=pause)
        self.use_the_session(after)
        self.end_the_response()

    # --- everything else that happens

    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def revoke(self, which: int) -> None:
        if self.model.kept:
            handle = [*self.model.kept][-1 - which % len(self.model.kept)]
            lived = self.model.living(handle, self.clock()) is not None
            assert self.portal.call(self.app.manager.revoke, handle) is lived
            if lived:
                del self.model.kept[handle]

    def take_over_an_id(self, browser: str, which: int) -> None:
        """A copied cookie, or one that a browser kept too long."""
        if self.seen_ids:
            self.jars[browser] = self.seen_ids[-1 - which % len(self.seen_ids)], math.inf

    def restart(self) -> None:
        self.server.close()
        self.serve()

    def sweep(self) -> None:
        self.portal.call(self.store.purge, self.clock(), 500)
        assert self.portal.call(self.store.purge, self.clock(), 500) == 0

    @invariant()
    def the_store_holds_what_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        now = self.clock()
        expected = {
            handle: (kept.data, kept.created, kept.expires, kept.principal)
            for handle, kept in self.model.kept.items()
            if kept.expires > now
        }
        found = self.portal.call(self._stored_eventually, expected)
        assert found == expected

    async def _stored_eventually(self, expected: dict[str, Any]) -> dict[str, Any]:
        """What is stored; with a flusher, once it is what it should be."""
        found = await self._stored()
        with anyio.move_on_after(2 if self.flushes else 0):
            while found != expected:
                await anyio.sleep(0.001)
                found = await self._stored()
        return found

    async def _stored(self) -> dict[str, Any]:
        now = self.clock()
        found = {}
        for summary in await self.store.scan(now):
            record = await self.store.load(summary.handle, now)
            if record is None:  # the flusher handed over its end between the two looks
                assert self.flushes
                continue
            data = decode_many(record.items)
            found[record.handle] = (data, record.created, record.expires, record.principal)
        return found


async def _no_app(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("each request brings its own handler")


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True], ids=["memory", "sqlite"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_requests_one_after_the_other_do_what_a_plain_model_says(
    backend: str, tally: Tally, *, persistent: bool
) -> None:
    begun: list[str] = []
    machine = type(
        "Machine", (Sequence,), {"backend": backend, "persistent": persistent, "begun": begun}
    )

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=effort(20, soak=500) if persistent else effort(70, soak=2_000),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

    tally("sequences", len(begun))
