"""P5: a write is handed to the store at the latest at the task's next await, not at the end.

An exception in the handler afterwards does not lose it; `on_error="rollback"` changes that, but
never for what was saved, updated or destroyed explicitly. A new id waits for the response.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from minisession import SessionConfig, SessionMiddleware, UnstorableValue, session
from minisession.abc import Store
from minisession.stores.sqlite import SQLiteStore
from tests.asgi_client import Answer, Browser, Receive, Scope, Send, respond, routed, running
from tests.remote_store import RemoteStore

pytestmark = pytest.mark.anyio

Page = Callable[[Scope, Receive, Send], Awaitable[None]]


async def begin(scope: Scope, receive: Receive, send: Send) -> None:
    session.update(n=0, cart=[])
    await respond(send)


async def show(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, repr(sorted(session.items())).encode())


def app_with(store: Store, page: Page, **config: object) -> SessionMiddleware:
    return SessionMiddleware(
        routed(begin=begin, page=page, show=show),
        store,
        SessionConfig(**config),  # type: ignore[arg-type]
    )


async def items(store: Store) -> dict[str, bytes]:
    """Return what the store has of its only session."""
    [summary] = await store.scan(0.0)
    record = await store.load(summary.handle, 0.0)
    assert record is not None
    return dict(record.items)


async def test_a_write_is_handed_over_at_the_next_await() -> None:
    store = RemoteStore()
    handed_over: list[bool] = []

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        commits = len(store.commits)
        session["n"] = 1
        handed_over.append(len(store.commits) > commits)
        await anyio.wait_all_tasks_blocked()
        handed_over.append(len(store.commits) > commits)
        await respond(send)

    app = app_with(store, page)
    async with running(app):
        browser = Browser(app)
        await browser.get("/begin")
        await browser.get("/page")

    assert handed_over == [False, True]


async def test_a_write_is_in_the_store_while_the_handler_still_works(store: Store) -> None:
    seen: list[bytes] = []

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        with anyio.fail_after(10):
            while (await items(store))["n"] == b"0":
                await anyio.lowlevel.checkpoint()
        seen.append((await items(store))["n"])
        await respond(send)

    app = app_with(store, page)
    async with running(app):
        browser = Browser(app)
        await browser.get("/begin")
        await browser.get("/page")

    assert seen == [b"1"]


async def test_a_write_of_a_worker_thread_is_stored_while_the_thread_still_works(
    store: Store,
) -> None:
    seen: list[bytes] = []

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        def work() -> None:
            session["n"] = 1
            anyio.from_thread.run(until_stored)

        await anyio.to_thread.run_sync(work)
        await respond(send)

    async def until_stored() -> None:
        with anyio.fail_after(10):
            while (await items(store))["n"] == b"0":
                await anyio.lowlevel.checkpoint()
        seen.append((await items(store))["n"])

    app = app_with(store, page)
    async with running(app):
        browser = Browser(app)
        await browser.get("/begin")
        await browser.get("/page")

    assert seen == [b"1"]


@pytest.mark.parametrize("lifespan", [True, False], ids=["lifespan", "no lifespan"])
async def test_an_exception_after_a_write_keeps_it(store: Store, lifespan: bool) -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        session["cart"].append("tea")
        raise ZeroDivisionError

    app = app_with(store, page)
    browser = Browser(app)
    async with running(app) if lifespan else store:
        await browser.get("/begin")
        with pytest.raises(ZeroDivisionError):
            await browser.get("/page")
        shown = await browser.get("/show")

    assert shown.body == b"[('cart', ['tea']), ('n', 1)]"


async def test_with_rollback_an_exception_drops_what_was_written(store: Store) -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        session["new"] = 1
        del session["cart"]
        await anyio.wait_all_tasks_blocked()
        raise ZeroDivisionError

    app = app_with(store, page, on_error="rollback")
    browser = Browser(app)
    async with running(app):
        await browser.get("/begin")
        with pytest.raises(ZeroDivisionError):
            await browser.get("/page")
        shown = await browser.get("/show")

    assert shown.body == b"[('cart', []), ('n', 0)]"


async def test_with_rollback_a_nested_value_that_is_refused_drops_the_other_writes_too(
    store: Store,
) -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        session["cart"].append(object())
        await respond(send)

    app = app_with(store, page, on_error="rollback")
    browser = Browser(app)
    async with running(app):
        await browser.get("/begin")
        with pytest.raises(UnstorableValue):
            await browser.get("/page")
        shown = await browser.get("/show")

    assert shown.body == b"[('cart', []), ('n', 0)]"


async def by_save() -> None:
    session["n"] = 1
    await session.save()


async def by_update() -> None:
    await session.update("n", lambda n: n + 1)


@pytest.mark.parametrize("explicit", [by_save, by_update])
@pytest.mark.parametrize("fails", ["raises", "answers 500"])
async def test_rollback_spares_what_was_stored_explicitly(
    store: Store, explicit: Callable[[], Awaitable[None]], fails: str
) -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await explicit()
        session["m"] = 2
        if fails == "raises":
            raise ZeroDivisionError
        await respond(send, status=500)

    app = app_with(store, page, on_error="rollback")
    browser = Browser(app)
    async with running(app):
        await browser.get("/begin")
        with suppress(ZeroDivisionError):
            await browser.get("/page")
        shown = await browser.get("/show")

    assert shown.body == b"[('cart', []), ('n', 1)]"


@pytest.mark.parametrize("on_error", ["commit", "rollback"])
@pytest.mark.parametrize("fails", ["raises", "answers 500"])
@pytest.mark.parametrize("flash", [False, True], ids=["", "with a flash message"])
async def test_a_destroy_is_never_rolled_back(
    store: Store, on_error: str, fails: str, flash: bool
) -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        session.destroy()
        if flash:
            session["flash"] = "Bye"
        if fails == "raises":
            raise ZeroDivisionError
        await respond(send, status=500)

    app = app_with(store, page, on_error=on_error)
    browser = Browser(app)
    async with running(app):
        await browser.get("/begin")
        old = browser.id
        with suppress(ZeroDivisionError):
            await browser.get("/page")
        again = Browser(app)
        again.id = old
        shown = await again.get("/show")

    assert shown.body == b"[]"


async def test_what_issues_an_id_waits_for_the_response() -> None:
    store = RemoteStore()
    commits: list[int] = []

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        before = len(store.commits)
        session.regenerate()
        session["n"] = 1
        await anyio.wait_all_tasks_blocked()
        commits.append(len(store.commits) - before)
        await respond(send)
        commits.append(len(store.commits) - before)

    app = app_with(store, page)
    async with running(app):
        browser = Browser(app)
        await browser.get("/begin")
        old = browser.id
        await browser.get("/page")
        new = browser.id

    assert commits == [0, 1]
    assert old != new


async def test_a_login_that_fails_leaves_the_old_id_and_the_old_data(store: Store) -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["before"] = 1
        session.regenerate()
        session["user"] = "Ada"
        await anyio.wait_all_tasks_blocked()
        raise ZeroDivisionError

    app = app_with(store, page)
    browser, answer = Browser(app), Answer()
    async with running(app):
        await browser.get("/begin")
        with pytest.raises(ZeroDivisionError):
            await browser.get("/page", into=answer)
        shown = await browser.get("/show")

    assert not answer.started
    assert shown.body == b"[('before', 1), ('cart', []), ('n', 0)]"


async def test_what_is_written_lasts(database: object) -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        await respond(send)

    first = app_with(SQLiteStore(str(database)), page)
    browser = Browser(first)
    async with running(first):
        await browser.get("/begin")
        await browser.get("/page")

    second = Browser(app_with(SQLiteStore(str(database)), page))
    second.id = browser.id
    async with running(second.app):
        shown = await second.get("/show")

    assert shown.body == b"[('cart', []), ('n', 1)]"
