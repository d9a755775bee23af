"""The committer where asyncio's own `Task.cancel()` passes every shield, and where loops end."""

# ruff: noqa: PT012  # it is often the end of an `async with sessions.open()` that raises

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from minisession import (
    SaveOutcomeUnknown,
    Session,
    SessionClosed,
    SessionConfig,
    SessionGone,
    SessionManager,
    SessionMiddleware,
    StoreUnavailable,
    session,
)
from minisession._core.books import State
from minisession._core.ledger import Ledger
from minisession.abc import Record
from minisession.stores.sqlite import SQLiteStore
from tests.asgi_client import Browser, Receive, Scope, Send, respond, routed, running
from tests.remote_store import Fault, RemoteStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """trio has no cancellation that ignores shields."""
    return "asyncio"


# Nothing is flushed under a save, so that it is the save's own wait that is lost.
UNFLUSHED = SessionConfig(on_error="rollback")


async def begun(sessions: SessionManager, principal: str | None = None) -> str:
    async with sessions.open() as one:
        one["n"] = 0
        one.principal = principal
        await one.save()
        return str(one.id)


def unowned(operation: Awaitable[None]) -> asyncio.Task[None]:
    """Start a task that no group owns: its own `cancel()`, past all shields, is what is tried."""
    return asyncio.ensure_future(operation)


async def on_its_way(
    store: RemoteStore, operation: Callable[[], Awaitable[object]]
) -> asyncio.Task[None]:
    """Start an operation, and return its task when its change is with the store."""
    commits = len(store.commits)

    async def run() -> None:
        await operation()

    task = unowned(run())
    while len(store.commits) == commits:
        await checkpoint()
    return task


async def lose_the_wait(store: RemoteStore, operation: Callable[[], Awaitable[object]]) -> None:
    """Start an operation, and cancel its task when its change is with the store."""
    task = await on_its_way(store, operation)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def give_up(store: RemoteStore, operation: Callable[[], Awaitable[object]]) -> None:
    """Start an operation; when its change is with the store, cancel its task until it ends."""
    task = await on_its_way(store, operation)
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)


def changed(one: Session) -> None:
    one["n"] = 1


def dropped(one: Session) -> None:
    del one["n"]


def cleared(one: Session) -> None:
    one.clear()
    one["m"] = 1


def named(one: Session) -> None:
    one.principal = "user:7"


def unnamed(one: Session) -> None:
    one.principal = None


@pytest.mark.parametrize("write", [changed, dropped, cleared, named, unnamed])
@pytest.mark.parametrize("stored", [True, False])
async def test_what_looking_shows_of_a_lost_wait_is_no_doubt_and_the_rest_is_told(
    write: Callable[[Session], None], stored: bool
) -> None:
    store = RemoteStore()
    async with SessionManager(store, UNFLUSHED) as sessions:
        id = await begun(sessions, principal="user:1")
        async with sessions.open(id) as one:
            store.faults = [] if stored else [Fault.REFUSES]
            write(one)
            wanted = dict(one), one.principal
            await lose_the_wait(store, one.save)
            await anyio.wait_all_tasks_blocked()

            assert ((dict(one), one.principal) == wanted) == stored
            if not stored:
                with pytest.raises(SaveOutcomeUnknown):
                    await one.save()
            one["later"] = 2
            await one.save()


@pytest.mark.parametrize("stored", [True, False])
async def test_a_lost_wait_for_a_login_finds_out_which_id_is_good(stored: bool) -> None:
    store = RemoteStore()
    async with SessionManager(store, UNFLUSHED) as sessions:
        old = await begun(sessions)
        async with sessions.open(old) as one:
            store.faults = [] if stored else [Fault.REFUSES]
            one.regenerate()
            await lose_the_wait(store, one.save)
            await anyio.wait_all_tasks_blocked()

            assert (one.id == old) == (not stored)
            if not stored:
                with pytest.raises(SaveOutcomeUnknown):
                    await one.save()
            one["m"] = 2
            await one.save()


async def test_a_lost_wait_for_a_session_that_others_have_ended_is_told_at_the_end() -> None:
    store = RemoteStore()
    async with SessionManager(store, UNFLUSHED) as sessions:
        id = await begun(sessions)
        with pytest.raises(SessionGone):
            async with sessions.open(id) as one:
                one["n"] = 1
                await sessions.revoke(str(one.handle))
                await lose_the_wait(store, one.save)
                await anyio.wait_all_tasks_blocked()


async def test_no_answer_acknowledges_a_write_that_was_refused_behind_a_lost_wait() -> None:
    store = RemoteStore()

    async def begin(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 0
        await respond(send)

    async def survive(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        store.faults = [Fault.REFUSES]
        await lose_the_wait(store, session.save)
        await anyio.wait_all_tasks_blocked()
        await respond(send)

    app = SessionMiddleware(routed(begin=begin, survive=survive), store, UNFLUSHED)
    browser = Browser(app)
    async with running(app):
        await browser.get("/begin")

        assert (await browser.get("/survive")).status == 503


async def test_a_lost_wait_for_a_logout_is_no_doubt_once_it_is_seen() -> None:
    store = RemoteStore()
    async with SessionManager(store, UNFLUSHED) as sessions:
        id = await begun(sessions)
        async with sessions.open(id) as one:
            one.destroy()
            await lose_the_wait(store, one.save)
            await anyio.wait_all_tasks_blocked()

            await one.save()
            assert not one.is_started
            assert await store.scan(0.0) == []


async def test_a_lost_wait_for_a_logout_that_was_refused_is_not_taken_for_done() -> None:
    store = RemoteStore()
    async with SessionManager(store, UNFLUSHED) as sessions:
        id = await begun(sessions)
        with pytest.raises(SaveOutcomeUnknown, match="did not say what became of it"):
            async with sessions.open(id) as one:
                store.faults = [Fault.REFUSES]
                one.destroy()
                await lose_the_wait(store, one.save)
                await anyio.wait_all_tasks_blocked()

        assert await store.scan(0.0) != []


async def test_a_lost_wait_for_a_logout_of_which_nothing_can_be_seen_says_why() -> None:
    store = RemoteStore()
    async with SessionManager(store, UNFLUSHED) as sessions:
        id = await begun(sessions)
        with pytest.raises(SaveOutcomeUnknown, match="the store is away"):
            async with sessions.open(id) as one:
                one.destroy()
                store.load_error = StoreUnavailable("the store is away")
                await lose_the_wait(store, one.save)
                await anyio.wait_all_tasks_blocked()


async def test_a_lost_wait_for_a_write_to_a_session_that_has_ended_finds_it_gone() -> None:
    store = RemoteStore()
    async with SessionManager(store, UNFLUSHED) as sessions:
        id = await begun(sessions)
        with pytest.raises(SessionGone):
            async with sessions.open(id) as one:
                assert one["n"] == 0
                assert await sessions.revoke(one.handle or "")
                one["n"] = 1
                await lose_the_wait(store, one.save)
                await anyio.wait_all_tasks_blocked()

                assert not one.is_started
                await one.save()


@pytest.mark.parametrize(
    "error", [StoreUnavailable("away"), RuntimeError("a bug in the store")], ids=["away", "broken"]
)
async def test_what_cannot_be_found_out_stays_in_doubt_and_is_not_taken_for_an_end(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    store = RemoteStore()
    async with SessionManager(store, UNFLUSHED) as sessions:
        id = await begun(sessions)
        with pytest.raises(SaveOutcomeUnknown):
            async with sessions.open(id) as one:
                one["n"] = 1
                store.load_error = error
                await lose_the_wait(store, one.save)
                await anyio.wait_all_tasks_blocked()
                store.load_error = None

                assert one.is_started
                with pytest.raises(SaveOutcomeUnknown):
                    one["m"] = 2
        async with sessions.open(id) as one:
            assert one["n"] == 1
    assert (f"{store!r} failed" in caplog.text) is isinstance(error, RuntimeError)


async def test_a_store_that_refuses_to_be_asked_leaves_the_doubt_too() -> None:
    store = RemoteStore()
    async with SessionManager(store, UNFLUSHED) as sessions:
        id = await begun(sessions)
        with pytest.raises(SaveOutcomeUnknown):
            async with sessions.open(id) as one:
                one["n"] = 1
                store.faults = [Fault.NONE, Fault.REFUSES]
                await lose_the_wait(store, one.save)
                await anyio.wait_all_tasks_blocked()


async def test_what_has_been_damaged_meanwhile_leaves_the_doubt_and_ends_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Damaged(RemoteStore):
        spoilt = False

        async def load(self, handle: str, now: float) -> Record | None:
            record = await super().load(handle, now)
            if record is None or not self.spoilt:
                return record
            return replace(record, items={"n": b"{"})

    store = Damaged()
    async with SessionManager(store, UNFLUSHED) as sessions:
        id = await begun(sessions)
        with pytest.raises(SaveOutcomeUnknown):
            async with sessions.open(id) as one:
                one["n"] = 1
                store.spoilt = True
                await lose_the_wait(store, one.save)
                await anyio.wait_all_tasks_blocked()
        store.spoilt = False
        async with sessions.open(id) as one:
            assert one["n"] == 1
            assert f"{one.handle} outcome unknown>: what became of it" in caplog.text


@pytest.mark.parametrize("fault", [Fault.TOO_BUSY, Fault.UNSURE_BEFORE])
async def test_what_the_flusher_could_not_store_for_a_task_that_gave_up_is_stored_or_reported(
    fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    store = RemoteStore()
    async with SessionManager(store, SessionConfig(save_timeout=0.2)) as sessions:
        id = await begun(sessions)

        async def write() -> None:
            async with sessions.open(id) as one:
                one["n"] = 1
                await anyio.sleep_forever()

        store.faults = [fault]
        await give_up(store, write)
    async with store:
        record = await store.load(id.partition(".")[0], 0.0)

    assert record is not None
    is_reported = "could not be stored" in caplog.text
    assert (record.items["n"] == b"1", is_reported) == (
        (True, False) if fault is Fault.TOO_BUSY else (False, True)
    )


async def test_what_is_finished_for_a_task_that_gave_up_gives_the_session_no_other_id() -> None:
    store = RemoteStore()
    async with SessionManager(store) as sessions:
        id = await begun(sessions)
        ledgers: list[Ledger] = []

        async def log_in() -> None:
            async with sessions.open(id) as one:
                ledgers.append(one._ledger)
                one["n"] = 1
                while one._ledger.flight is None:
                    await checkpoint()
                one["n"] = 2
                one.regenerate()
                await anyio.sleep_forever()

        await give_up(store, log_in)
        await anyio.wait_all_tasks_blocked()

        assert ledgers[0].state is State.CLOSED
        async with sessions.open(id) as one:
            assert one["n"] == 2


async def test_what_a_task_that_gave_up_has_written_is_stored_by_a_manager_that_is_left() -> None:
    store = RemoteStore()
    async with SessionManager(store) as sessions:
        id = await begun(sessions)

        async def write() -> None:
            async with sessions.open(id) as one:
                one["n"] = 1
                while one._ledger.flight is None:
                    await checkpoint()
                one["n"] = 2
                await anyio.sleep_forever()

        await give_up(store, write)
    async with store:
        record = await store.load(id.partition(".")[0], 0.0)

    assert record is not None
    assert record.items["n"] == b"2"


@pytest.mark.parametrize("more", [True, False], ids=["writes behind it", "nothing behind it"])
async def test_without_a_lifespan_what_waits_behind_a_sibling_of_a_task_that_gave_up_is_reported(
    more: bool, caplog: pytest.LogCaptureFixture
) -> None:
    store = RemoteStore()
    manager = SessionManager(store)
    siblings: list[asyncio.Task[None]] = []
    opened: list[Session] = []

    async def write(id: str) -> None:
        async with manager.open(id) as one:
            opened.append(one)
            one["n"] = 1
            siblings.append(unowned(one.save()))
            while one._ledger.flight is None:
                await checkpoint()
            if more:
                one["n"] = 2
            await anyio.sleep_forever()

    async with store:
        id = await begun(manager)
        store.faults = [Fault.SILENT_AFTER]
        await give_up(store, partial(write, id))
        with pytest.raises(SessionClosed):
            opened[0].get("n")
        siblings[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await siblings[0]

    lost = "cancelled again and again, it lost its last writes"
    assert [lost in record.message for record in caplog.records] == [True] * more


async def on_another_loop(operation: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run an operation on a loop of its own, as another thread does."""
    await anyio.to_thread.run_sync(lambda: asyncio.run(operation()))


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Keep the writer of a database waiting for the block."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


async def test_a_wait_that_is_lost_on_another_loop_leaves_a_doubt_that_a_refresh_clears(
    tmp_path: Path,
) -> None:
    """The tasks of the lifespan belong to its loop: no other may have them look."""
    path = tmp_path / "sessions.db"

    async with SessionManager(SQLiteStore(path), UNFLUSHED) as sessions:
        id = await begun(sessions)

        async def elsewhere() -> None:
            async with sessions.open(id) as one:
                with locked(path):
                    one["n"] = 1
                    save = unowned(one.save())
                    while one._ledger.flight is None:
                        await checkpoint()
                    save.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await save
                    with pytest.raises(SaveOutcomeUnknown):
                        one["m"] = 2
                await one.refresh()
                assert one["n"] == 1

        await on_another_loop(elsewhere)


async def test_an_exchange_that_is_given_up_on_another_loop_is_closed_and_reported_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "sessions.db"

    async with SessionManager(SQLiteStore(path)) as sessions:
        id = await begun(sessions)

        async def elsewhere() -> None:
            opened: list[Session] = []
            siblings: list[asyncio.Task[None]] = []

            async def write(id: str) -> None:
                async with sessions.open(id) as one:
                    opened.append(one)
                    one["n"] = 1
                    siblings.append(unowned(one.save()))
                    while one._ledger.flight is None:
                        await checkpoint()
                    one["n"] = 2
                    await anyio.sleep_forever()

            with locked(path):
                task = unowned(write(id))
                while not siblings or opened[0]._ledger.flight is None:
                    await checkpoint()
                while not task.done():
                    task.cancel()
                    await asyncio.sleep(0)
                with pytest.raises(SessionClosed):
                    opened[0].get("n")
            await siblings[0]

        await on_another_loop(elsewhere)

    assert "cancelled again and again, it lost its last writes" in caplog.text


async def test_without_a_lifespan_a_lost_wait_leaves_a_doubt_that_a_refresh_clears() -> None:
    store = RemoteStore()
    manager = SessionManager(store, UNFLUSHED)
    async with store:
        id = await begun(manager)
        async with manager.open(id) as one:
            one["n"] = 1
            await lose_the_wait(store, one.save)

            with pytest.raises(SaveOutcomeUnknown):
                one["m"] = 2
            await one.refresh()
            assert one["n"] == 1


async def test_a_loop_that_has_ended_leaves_nobody_waiting_for_ever() -> None:
    """A flight whose loop is gone never lands; whoever waits for it gives up at the deadline."""
    store = RemoteStore()
    sessions = SessionManager(store, SessionConfig(save_timeout=0.02))
    async with store:
        id = await begun(sessions)
        with anyio.fail_after(5), pytest.raises(SaveOutcomeUnknown):
            async with sessions.open(id) as one:
                assert one["n"] == 0
                one._ledger.pause()  # as if another loop had taken it, and ended
                try:
                    await one.save()
                finally:
                    one._ledger.flight = None


async def test_an_update_of_a_session_that_was_destroyed_meanwhile_says_that_it_is_gone() -> None:
    store = RemoteStore()
    async with SessionManager(store, UNFLUSHED) as sessions:
        id = await begun(sessions)
        async with sessions.open(id) as one:

            def log_out(n: int) -> int:
                one.destroy()
                return n + 1

            with pytest.raises(SessionGone):
                await one.update("n", log_out)

        assert await store.scan(0.0) == []
