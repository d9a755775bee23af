"""P7: cancellation is safe, wherever it comes.

What was written before is stored, and every operation of several steps is one step in the store:
the old state or the new, never both, never neither. Nothing stays locked, the next operation is
right, and no cookie is sent for what is not stored. Here every operation is cancelled at every
one of its suspension points.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from minisession import Session, SessionClosed, SessionConfig, SessionManager, SessionMiddleware
from minisession.abc import Store
from minisession.errors import MinisessionError
from minisession.stores.memory import MemoryStore
from minisession.stores.sqlite import SQLiteStore
from tests.asgi_client import Answer, Browser, Receive, Scope, Send, respond, routed
from tests.remote_store import Fault, RemoteStore
from tests.tripwire import cancel_everywhere, cancel_natively_everywhere

pytestmark = pytest.mark.anyio

STORES = ["memory", "sqlite", "remote"]
WAYS = [
    pytest.param(("asyncio", cancel_everywhere), id="asyncio"),
    pytest.param(("trio", cancel_everywhere), id="trio"),
    pytest.param(("asyncio", cancel_natively_everywhere), id="asyncio-native"),
]
Sweep = Callable[..., Awaitable[int]]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> tuple[str, Sweep]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def anyio_backend(way: tuple[str, Sweep]) -> str:
    return way[0]


@pytest.fixture
def sweep(way: tuple[str, Sweep]) -> Sweep:
    return way[1]


@pytest.fixture(params=STORES)
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    stores: dict[str, Callable[[], Store]] = {
        "memory": MemoryStore,
        "sqlite": lambda: SQLiteStore(tmp_path / "sessions.db"),
        "remote": RemoteStore,
    }
    return stores[request.param]()


@pytest.fixture
async def sessions(any_store: Store) -> AsyncIterator[SessionManager]:
    async with SessionManager(any_store) as manager:
        yield manager


BEFORE = {"n": 0, "cart": []}


def least_points(sessions: SessionManager) -> int:
    """Return how often an operation suspends at the least: the memory store never waits."""
    return 0 if isinstance(sessions.store, MemoryStore) else 1


@dataclass
class Trial:
    """One session, an operation on it, and what is left of both afterwards."""

    sessions: SessionManager
    id: str = ""
    new_id: str | None = None
    has_written: bool = False
    kept: list[Session] = field(default_factory=list)

    async def begin(self) -> None:
        async with self.sessions.open() as one:
            one.update(BEFORE)
            await one.save()
            self.id = str(one.id)
        self.new_id, self.has_written = None, False
        self.kept.clear()

    async def look(self, id: str | None) -> dict[str, Any] | None:
        """Return what an id opens, once everything that was handed over has landed."""
        await anyio.wait_all_tasks_blocked()
        await self.sessions.revoke("A" * 22)  # whatever was queued before it is done after it
        if id is None:
            return None
        async with self.sessions.open(id) as one:
            return one.all() if one.is_started else None

    async def require_usable(self, id: str) -> None:
        """Fail if anything is still locked, or the next operation goes wrong."""
        with anyio.fail_after(5):
            async with self.sessions.open(id) as one:
                before = one.get("n", 0)
                assert await one.update("n", lambda n: n + 1, default=0) == before + 1
        for each in self.kept:
            with pytest.raises(SessionClosed):
                each.get("n")


async def write(trial: Trial, one: Session) -> None:
    one["n"] = 1
    one["cart"].append("tea")
    trial.has_written = True
    await one.save()


async def write_and_leave(trial: Trial, one: Session) -> None:
    one["n"] = 1
    one["cart"].append("tea")
    trial.has_written = True
    await checkpoint()


@pytest.mark.parametrize("operation", [write, write_and_leave])
async def test_what_was_written_before_a_cancellation_is_stored(
    sessions: SessionManager, sweep: Sweep, operation: Callable[[Trial, Session], Awaitable[None]]
) -> None:
    trial = Trial(sessions)

    async def prepare() -> Awaitable[None]:
        await trial.begin()
        return run()

    async def run() -> None:
        async with sessions.open(trial.id) as one:
            trial.kept.append(one)
            await operation(trial, one)

    async def check() -> None:
        after = {"n": 1, "cart": ["tea"]}
        assert await trial.look(trial.id) == (after if trial.has_written else BEFORE)
        await trial.require_usable(trial.id)

    assert await sweep(prepare, check) >= least_points(sessions)


async def test_an_update_happens_once_or_not_at_all(sessions: SessionManager, sweep: Sweep) -> None:
    trial = Trial(sessions)

    async def prepare() -> Awaitable[None]:
        await trial.begin()
        return run()

    async def run() -> None:
        async with sessions.open(trial.id) as one:
            trial.kept.append(one)
            await one.update("n", lambda n: n + 1)

    async def check() -> None:
        left = await trial.look(trial.id)
        assert left in ({"n": 0, "cart": []}, {"n": 1, "cart": []})
        assert not sessions._turns
        await trial.require_usable(trial.id)

    assert await sweep(prepare, check) >= least_points(sessions)


async def test_a_login_leaves_the_old_id_with_the_old_data_or_the_new_with_the_new(
    sessions: SessionManager, sweep: Sweep
) -> None:
    trial = Trial(sessions)

    async def prepare() -> Awaitable[None]:
        await trial.begin()
        return run()

    async def run() -> None:
        async with sessions.open(trial.id) as one:
            trial.kept.append(one)
            one.regenerate()
            one["user"] = "Ada"
            del one["cart"]
            trial.new_id = one.id
            await one.save()

    async def check() -> None:
        old, new = await trial.look(trial.id), await trial.look(trial.new_id)
        assert (old, new) in ((BEFORE, None), (None, {"n": 0, "user": "Ada"}))
        await trial.require_usable(trial.id if new is None else str(trial.new_id))

    assert await sweep(prepare, check) >= least_points(sessions)


@pytest.mark.parametrize("flash", [False, True], ids=["", "with a flash message"])
async def test_a_logout_ends_the_session_and_starts_at_most_one(
    sessions: SessionManager, sweep: Sweep, flash: bool
) -> None:
    trial = Trial(sessions)

    async def prepare() -> Awaitable[None]:
        await trial.begin()
        return run()

    async def run() -> None:
        async with sessions.open(trial.id) as one:
            trial.kept.append(one)
            assert one["n"] == 0
            one.destroy()
            trial.has_written = True
            if flash:
                one["flash"] = "Bye"
                trial.new_id = one.id
            await one.save()

    async def check() -> None:
        old, new = await trial.look(trial.id), await trial.look(trial.new_id)
        assert old == (None if trial.has_written else BEFORE)
        assert new in (None, {"flash": "Bye"})
        await trial.require_usable(trial.id)

    assert await sweep(prepare, check) >= least_points(sessions)


async def test_a_new_session_is_there_whole_or_not_at_all(
    sessions: SessionManager, sweep: Sweep
) -> None:
    trial = Trial(sessions)

    async def prepare() -> Awaitable[None]:
        await trial.begin()
        return run()

    async def run() -> None:
        async with sessions.open() as one:
            trial.kept.append(one)
            one["a"] = 1
            trial.new_id = one.id
            one["b"] = 2
            await one.save()

    async def check() -> None:
        assert await trial.look(trial.new_id) in (None, {"a": 1, "b": 2})
        await trial.require_usable(trial.id)

    assert await sweep(prepare, check) >= least_points(sessions)


async def test_a_refresh_changes_nothing_that_is_stored(
    sessions: SessionManager, sweep: Sweep
) -> None:
    trial = Trial(sessions)

    async def prepare() -> Awaitable[None]:
        await trial.begin()
        return run()

    async def run() -> None:
        async with sessions.open(trial.id) as one:
            trial.kept.append(one)
            one["n"] = 1
            trial.has_written = True
            await one.refresh()
            one["cart"].append("tea")

    async def check() -> None:
        left = await trial.look(trial.id)
        assert left in ({"n": 1, "cart": []}, {"n": 1, "cart": ["tea"]}) or (
            left == BEFORE and not trial.has_written
        )
        await trial.require_usable(trial.id)

    await sweep(prepare, check)


# --- the middleware ------------------------------------------------------------------------------


class Site:
    """Pages that write, log in and out; each leaves its session object behind."""

    def __init__(self, store: Store) -> None:
        self.kept: list[Session] = []
        pages = routed(
            begin=self.begin, write=self.write, login=self.login, logout=self.logout, body=self.body
        )
        self.app = SessionMiddleware(pages, store)

    async def begin(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["session"].update(BEFORE)
        await respond(send)

    async def write(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.kept.append(scope["session"])
        scope["session"]["n"] = 1
        await receive()
        await respond(send)

    async def login(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.kept.append(scope["session"])
        scope["session"].regenerate()
        scope["session"]["n"] = 1
        await receive()
        await respond(send)

    async def logout(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.kept.append(scope["session"])
        scope["session"].destroy()
        await receive()
        await respond(send)

    async def body(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.kept.append(scope["session"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        scope["session"]["n"] = 1
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("path", ["/write", "/login", "/logout", "/body"])
async def test_a_request_that_is_cancelled_leaves_the_old_state_or_the_new(
    any_store: Store, sweep: Sweep, path: str
) -> None:
    site = Site(any_store)
    async with site.app.manager as sessions:
        trial = Trial(sessions)
        browser, answer = Browser(site.app), Answer()

        async def prepare() -> Awaitable[object]:
            nonlocal browser, answer
            browser, answer = Browser(site.app), Answer()
            await browser.get("/begin")
            trial.id = str(browser.id)
            site.kept.clear()
            return browser.get(path, into=answer)

        async def anew() -> str:
            other = Browser(site.app)
            await other.get("/begin")
            return str(other.id)

        async def check() -> None:
            old_id = trial.id
            browser.keep(answer)
            old = await trial.look(old_id)
            told = answer.started and path != "/body"  # a body that began has promised nothing
            if path in ("/write", "/body"):
                assert old == {**BEFORE, "n": 1} or (old == BEFORE and not told)
            else:
                assert old is None or (old == BEFORE and not told)
            if path == "/login" and answer.cookies:
                assert await trial.look(browser.id) == {**BEFORE, "n": 1}
            if answer.is_complete:
                assert old != BEFORE
            trial.kept = site.kept
            await trial.require_usable(old_id if old or path != "/login" else await anew())

        assert await sweep(prepare, check) >= 2


# --- a store that does not answer ----------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.TOO_BUSY, Fault.SILENT_BEFORE, Fault.SILENT_AFTER])
async def test_a_cancelled_task_waits_for_its_writes_no_longer_than_the_deadline(
    fault: Fault, way: tuple[str, Sweep]
) -> None:
    store = RemoteStore()
    config = SessionConfig(save_timeout=0.2)
    async with SessionManager(store, config) as sessions:
        trial = Trial(sessions)
        await trial.begin()
        store.fault = fault
        with anyio.fail_after(5), anyio.CancelScope() as scope:
            async with sessions.open(trial.id) as one:
                one["n"] = 1
                scope.cancel()
                await checkpoint()
        store.fault = Fault.NONE

        left = await trial.look(trial.id)
        assert left is not None
        assert left["n"] in (0, 1)
        await trial.require_usable(trial.id)


async def test_a_waiter_that_is_cancelled_takes_nobody_elses_batch_with_it(
    sessions: SessionManager, way: tuple[str, Sweep]
) -> None:
    trials = [Trial(sessions) for _ in range(10)]
    for trial in trials:
        await trial.begin()

    async def work(trial: Trial, gives_up: bool) -> None:
        with anyio.CancelScope() as scope:
            async with sessions.open(trial.id) as one:
                one["n"] = 1
                if gives_up:
                    scope.cancel()
                await one.save()

    async with anyio.create_task_group() as tasks:
        for number, trial in enumerate(trials):
            tasks.start_soon(work, trial, number % 2 == 0)

    assert [await trial.look(trial.id) for trial in trials] == [{"n": 1, "cart": []}] * 10


async def test_leaving_the_manager_by_cancellation_stores_what_is_left(
    any_store: Store, way: tuple[str, Sweep]
) -> None:
    ids: list[str] = []
    with anyio.CancelScope() as scope:
        async with SessionManager(any_store) as sessions:
            trial = Trial(sessions)
            await trial.begin()
            ids.append(trial.id)
            async with sessions.open(trial.id) as one:
                one["n"] = 1
                scope.cancel()

    async with SessionManager(any_store) as sessions, sessions.open(ids[0]) as one:
        assert one["n"] == 1


async def test_no_error_of_ours_hides_a_cancellation(
    sessions: SessionManager, way: tuple[str, Sweep]
) -> None:
    trial = Trial(sessions)
    await trial.begin()
    errors: list[BaseException] = []
    with anyio.CancelScope() as scope:
        try:
            async with sessions.open(trial.id) as one:
                one["n"] = 1
                await sessions.revoke(str(one.handle))
                one["cart"] = []
                scope.cancel()
                await checkpoint()
        except MinisessionError as error:
            errors.append(error)

    assert scope.cancelled_caught
    assert errors == []
