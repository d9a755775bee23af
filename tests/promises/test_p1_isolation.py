"""P1: a task sees the session of its own request and no other, however requests interleave.

Child tasks, worker threads, generators and background tasks see the same session object; what
outlives the request gets `SessionClosed`, and what runs outside of one gets `NoActiveSession`.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from minisession import (
    NoActiveSession,
    SessionClosed,
    SessionMiddleware,
    current,
    session,
)
from minisession.abc import Store
from minisession.stores.files import FilesStore
from minisession.stores.redis import RedisStore
from minisession.testing import Schedule, replay
from tests.asgi_client import Answer, Browser, Receive, Scope, Send, ask, respond, routed, running
from tests.effort import Tally
from tests.remote_store import RemoteStore

TASKS = 5_000
USERS = 250


class Witness:
    """An application that checks the owner of the session wherever it looks at it."""

    def __init__(self) -> None:
        self.reads = 0
        self.wrong: list[str] = []
        self.limiter = anyio.CapacityLimiter(8)

    def look(self, owner: str, where: str) -> None:
        self.reads += 1
        if session.get("owner") != owner or current()["owner"] != owner:
            self.wrong.append(f"{where}: {owner} saw {session.get('owner')!r}")

    async def begin(self, scope: Scope, receive: Receive, send: Send) -> None:
        session["owner"] = scope["owner"]
        await checkpoint()
        self.look(scope["owner"], "the first request")
        await respond(send)

    async def plain(self, scope: Scope, receive: Receive, send: Send) -> None:
        owner = scope["owner"]
        self.look(owner, "before")
        await checkpoint()
        session[f"written by {scope['number'] % 7}"] = owner
        await checkpoint()
        self.look(owner, "after")
        await respond(send, owner.encode())
        self.look(owner, "after the response")

    async def children(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def child() -> None:
            self.look(scope["owner"], "a child task")
            await checkpoint()
            session["child"] = scope["owner"]
            self.look(scope["owner"], "a child task, later")

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(child)
        await self.plain(scope, receive, send)

    async def thread(self, scope: Scope, receive: Receive, send: Send) -> None:
        def work() -> None:
            self.look(scope["owner"], "a worker thread")
            session["thread"] = scope["owner"]

        await anyio.to_thread.run_sync(work, limiter=self.limiter)
        await self.plain(scope, receive, send)

    async def cancelled(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.look(scope["owner"], "before the cancellation")
        session["cancelled"] = scope["owner"]
        scope["cancel"]()
        try:
            await checkpoint()
        finally:
            self.look(scope["owner"], "after the cancellation")


@pytest.mark.anyio
@pytest.mark.slow
async def test_five_thousand_interleaved_requests_see_their_own_session(
    store: Store, tally: Tally
) -> None:
    # Each is a file there, or several trips to a server.
    tasks = TASKS // 10 if isinstance(store, FilesStore | RedisStore) else TASKS
    witness = Witness()
    pages = {
        "begin": witness.begin,
        "plain": witness.plain,
        "children": witness.children,
        "thread": witness.thread,
        "cancelled": witness.cancelled,
    }
    app = SessionMiddleware(routed(**pages), store)
    ids: dict[str, str | None] = {}

    async def request(number: int) -> None:
        owner = f"user {number % USERS}"
        kind = "thread" if number % 20 == 0 else ("plain", "children", "cancelled")[number % 3]
        browser = Browser(_labelled(app, owner, number))
        browser.id = ids[owner]
        await browser.get(f"/{kind}")

    async def begin(owner: str) -> None:
        browser = Browser(_labelled(app, owner))
        await browser.get("/begin")
        ids[owner] = browser.id

    async with running(app):
        await _all_at_once(begin, [f"user {n}" for n in range(USERS)])
        await _all_at_once(request, list(range(tasks)))
        records = [
            await store.load(summary.handle, app.manager.clock())
            for summary in await store.scan(app.manager.clock())
        ]

    assert witness.wrong == []
    assert witness.reads > 2 * tasks
    assert len(records) == USERS
    assert all(record and len(set(record.items.values())) == 1 for record in records)
    tally("requests", USERS + tasks)


async def _all_at_once(
    function: Callable[[Any], Coroutine[Any, Any, None]], arguments: Iterable[object]
) -> None:
    async with anyio.create_task_group() as tasks:
        for argument in arguments:
            tasks.start_soon(function, argument)


def _labelled(app: SessionMiddleware, owner: str, number: int = 0) -> SessionMiddleware:
    """Tell the application, beside the protocol, whom it should be serving."""

    async def labelled(scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.CancelScope() as cancel:
            label = {"owner": owner, "number": number, "cancel": cancel.cancel}
            await app({**scope, **label}, receive, send)

    return labelled  # type: ignore[return-value]


# --- what belongs to a request -------------------------------------------------------------------


@pytest.mark.anyio
async def test_everything_that_works_for_a_request_sees_the_same_object(store: Store) -> None:
    seen: list[object] = []

    def numbers() -> Iterator[int]:
        seen.append(current())
        yield 1

    async def more_numbers() -> AsyncIterator[int]:
        seen.append(current())
        yield 2

    async def child() -> None:
        seen.append(current())

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        seen.extend([scope["session"], *(current() for _ in numbers())])
        seen.extend([current() async for _ in more_numbers()])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child)
        seen.append(await anyio.to_thread.run_sync(current))
        await respond(send)
        await child()  # as a background task does

    app = SessionMiddleware(routed(page=page), store)
    async with running(app):
        await ask(app, "/page")

    assert len(seen) == 8
    assert len({id(each) for each in seen}) == 1


@pytest.mark.anyio
async def test_what_outlives_its_request_is_told_how_to_go_on(store: Store) -> None:
    request_is_over = anyio.Event()
    found: list[object] = []

    async def outlives(handle: str | None) -> None:
        await request_is_over.wait()
        with pytest.raises(SessionClosed, match=rf"open_handle\('{handle}'\)"):
            session["n"] = 2
        async with app.manager.open_handle(str(handle)) as own:
            own["n"] += 1
            found.append(session["n"])

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        tasks.start_soon(outlives, session.handle)
        await respond(send)

    app = SessionMiddleware(routed(page=page), store)
    async with running(app), anyio.create_task_group() as tasks:
        await ask(app, "/page")
        request_is_over.set()

    assert found == [2]


@pytest.mark.anyio
async def test_a_task_started_outside_of_requests_has_no_session(store: Store) -> None:
    errors: list[str] = []

    async def outside() -> None:
        with pytest.raises(NoActiveSession) as caught:
            session["n"] = 1
        errors.append(str(caught.value))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outside)

    assert "SessionMiddleware(app" in errors[0]


@pytest.mark.anyio
async def test_an_abandoned_thread_finds_its_session_closed(store: Store) -> None:
    go_on, done = threading.Event(), threading.Event()
    outcomes: list[type[BaseException] | None] = []

    def work() -> None:
        go_on.wait(10)
        try:
            session["n"] = 99
        except BaseException as error:
            outcomes.append(type(error))
        done.set()

    async def begin(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        await respond(send)

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        assert session["n"] == 1
        with anyio.move_on_after(0):
            await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: anyio.to_thread.run_sync(work, abandon_on_cancel=True))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        await respond(send, str(session["n"]).encode())

    app = SessionMiddleware(routed(begin=begin, page=page), store)
    async with running(app):
        browser = Browser(app)
        await browser.get("/begin")
        answer = await browser.get("/page")
        go_on.set()
        assert await anyio.to_thread.run_sync(done.wait, 10)

    assert answer.body == b"1"
    assert outcomes == [SessionClosed]


# --- schedules -----------------------------------------------------------------------------------

STEPS = ("read", "write", "nested", "child", "save", "pause")
programs = st.lists(  # of each of up to four requests: whose it is, and what it does
    st.tuples(st.integers(0, 2), st.lists(st.sampled_from(STEPS), max_size=5)),
    min_size=2,
    max_size=4,
)


class Users:
    """Three users, whose requests check the owner of what they see at every step."""

    def __init__(self) -> None:
        self.wrong: list[tuple[object, object]] = []
        pages = routed(begin=self.begin, page=self.page)
        self.app = SessionMiddleware(pages, RemoteStore())

    async def begin(self, scope: Scope, receive: Receive, send: Send) -> None:
        session["owner"] = scope["owner"]
        await respond(send)

    async def page(self, scope: Scope, receive: Receive, send: Send) -> None:
        for kind in scope["program"]:
            await getattr(self, kind)(scope["owner"])
            await self.read(scope["owner"])
        await respond(send)

    async def read(self, owner: int) -> None:
        seen = dict(session).values()
        self.wrong.extend((owner, value) for value in seen if value not in (owner, [owner]))
        await checkpoint()

    async def write(self, owner: int) -> None:
        session["written"] = owner

    async def nested(self, owner: int) -> None:
        session["list"] = [owner]

    async def save(self, owner: int) -> None:
        await session.save()

    async def child(self, owner: int) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.read, owner)
            tasks.start_soon(self.read, owner)

    async def pause(self, owner: int) -> None:
        await checkpoint()

    def browser(self, owner: int, program: list[str]) -> Browser:
        async def labelled(scope: Scope, receive: Receive, send: Send) -> None:
            await self.app({**scope, "owner": owner, "program": program}, receive, send)

        return Browser(labelled)


async def isolated(requests: list[tuple[int, list[str]]]) -> None:
    """Run requests of three users at once, and check the owner at every look."""
    users = Users()
    answers = [Answer() for _ in requests]
    async with running(users.app):
        known = [users.browser(owner, []) for owner in range(3)]
        for browser in known:
            await browser.get("/begin")
        async with anyio.create_task_group() as tasks:
            for (owner, program), answer in zip(requests, answers, strict=True):
                browser = users.browser(owner, program)
                browser.id = known[owner].id
                tasks.start_soon(partial(browser.get, "/page", into=answer))

    assert users.wrong == []
    assert [answer.status for answer in answers] == [200] * len(requests)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(requests=programs, seed=st.integers(0))
@settings(max_examples=60, deadline=None)
def test_in_no_schedule_does_a_request_see_anothers_session(
    backend: str, requests: list[tuple[int, list[str]]], seed: int
) -> None:
    async def program() -> None:
        await isolated(requests)

    replay(program, Schedule.seeded(seed), backend=backend)


@pytest.mark.trio
@given(requests=programs, schedule=st.random_module())
@settings(max_examples=40, deadline=None)
async def test_in_none_of_trios_schedules_does_a_request_see_anothers_session(
    requests: list[tuple[int, list[str]]], schedule: object
) -> None:
    await isolated(requests)
