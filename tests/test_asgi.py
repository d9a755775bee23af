"""The middleware, message by message: what it lets through, holds back and says instead."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from minisession import (
    ConfigError,
    NoActiveSession,
    SessionClosed,
    SessionConfig,
    SessionExcluded,
    SessionManager,
    SessionMiddleware,
    StoreUnavailable,
    UnstorableValue,
    UsageError,
    session,
)
from minisession.stores.memory import MemoryStore
from tests.asgi_client import (
    COOKIE,
    Answer,
    Browser,
    Message,
    Receive,
    Scope,
    Send,
    ask,
    converse,
    http_scope,
    obey_lifespan,
    respond,
    routed,
    running,
)
from tests.remote_store import IN_DOUBT, NOT_STORED, Fault, RemoteStore

pytestmark = pytest.mark.anyio

Page = Callable[[Scope, Receive, Send], Awaitable[None]]


async def never() -> Message:
    """Receive nothing, however long one waits."""
    await anyio.sleep_forever()
    raise AssertionError("unreachable")


QUICK = SessionConfig(save_timeout=0.1)


async def write(scope: Scope, receive: Receive, send: Send) -> None:
    session["n"] = session.get("n", 0) + 1
    await respond(send)


async def read(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, str(session.get("n")).encode())


# --- binding -------------------------------------------------------------------------------------


async def test_the_ambient_session_is_the_one_in_the_scope() -> None:
    seen: list[bool] = []

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        seen.append(scope["session"]["n"] == 1)
        await respond(send)

    await ask(SessionMiddleware(page, "memory://"))

    assert seen == [True]


async def test_outside_of_a_request_there_is_no_session() -> None:
    await ask(SessionMiddleware(write, "memory://"))

    with pytest.raises(NoActiveSession, match="SessionMiddleware"):
        session.get("n")


async def test_after_the_request_its_session_is_closed() -> None:
    kept: list[Any] = []

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        kept.append(scope["session"])
        await respond(send)

    await ask(SessionMiddleware(page, "memory://"))

    with pytest.raises(SessionClosed):
        kept[0]["n"]


async def test_other_scopes_pass_through_untouched() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    scope: Scope = {"type": "something.else"}
    await ask_raw(SessionMiddleware(app, "memory://"), scope)

    assert seen == [{"type": "something.else"}]


async def ask_raw(app: Page, scope: Scope) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": f"{scope['type']}.startup"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def test_an_excluded_path_has_a_session_that_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        for touch in (lambda: session.get("n"), lambda: session.update(n=1), session.destroy):
            with pytest.raises(SessionExcluded, match="exclude"):
                touch()
        with pytest.raises(SessionExcluded):
            await session.save()
        await respond(send)

    app = SessionMiddleware(page, "memory://", SessionConfig(exclude=("/static/*",)))
    answer = await ask(app, "/static/logo.png", cookie=f"{COOKIE}={'A' * 22}.{'B' * 32}")

    assert answer.status == 200
    assert answer.cookies == []
    assert answer.values(b"vary") == []
    assert caplog.text == ""


async def test_a_failure_on_an_excluded_path_is_only_the_applications(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    app = SessionMiddleware(page, "memory://", SessionConfig(exclude=("/static/*",)))
    with pytest.raises(ZeroDivisionError):
        await ask(app, "/static/logo.png")

    assert caplog.text == ""


@pytest.mark.parametrize("replacement", [{}, None])
async def test_a_replaced_session_is_an_error_that_says_what_to_do(replacement: object) -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        scope["session"] = replacement
        await respond(send)

    with pytest.raises(UsageError, match=r"request\.session\.update"):
        await ask(SessionMiddleware(page, "memory://"))


# --- the response --------------------------------------------------------------------------------


async def test_headers_leave_only_after_the_store_has_the_writes() -> None:
    store = RemoteStore()
    stored: list[int] = []

    async def server_send(message: Message) -> None:
        if message["type"] == "http.response.start":
            stored.append(len(await store.scan(0.0)))

    app = SessionMiddleware(write, store)
    async with running_manager(app):
        await app(http_scope(), _no_body, server_send)

    assert stored == [1]


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def running_manager(app: SessionMiddleware) -> Any:
    """Enter the manager alone, for apps that know no lifespan."""
    return app.manager


async def test_a_request_that_touches_no_session_asks_the_store_for_nothing() -> None:
    class Untouchable(MemoryStore):
        def load_nowait(self, handle: str, now: float) -> None:
            raise AssertionError("was asked")

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, headers=[(b"x", b"1")])

    answer = await ask(
        SessionMiddleware(page, Untouchable()), cookie=f"{COOKIE}={'A' * 22}.{'B' * 32}"
    )

    assert answer.messages[0]["headers"] == [(b"x", b"1")]


async def test_a_body_that_writes_is_stored_before_its_last_part_leaves() -> None:
    store = MemoryStore()
    at_the_end: list[object] = []

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 0
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for n in range(1, 4):
            session["n"] = n
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def server_send(message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            [summary] = await store.scan(0.0)
            record = store.load_nowait(summary.handle, 0.0)
            assert record is not None
            at_the_end.append(record.items["n"])

    await SessionMiddleware(page, store)(http_scope(), _no_body, server_send)

    assert at_the_end == [b"3"]


async def test_messages_of_extensions_pass_through() -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.early_hint", "links": []})
        session["n"] = 1
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.pathsend", "path": "/tmp/x"})

    answer = await ask(SessionMiddleware(page, "memory://"))

    assert [message["type"].rpartition(".")[2] for message in answer.messages] == [
        "early_hint",
        "start",
        "pathsend",
    ]
    assert b"set-cookie" in dict(answer.messages[1]["headers"])


# --- when the application fails ------------------------------------------------------------------


async def test_a_new_session_of_a_failed_request_is_dropped() -> None:
    store = MemoryStore()

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        raise ZeroDivisionError

    answer = Answer()
    with pytest.raises(ZeroDivisionError):
        await ask(SessionMiddleware(page, store), into=answer)

    assert not answer.started
    assert repr(store) == "<MemoryStore sessions=0>"


async def test_an_id_that_was_saved_before_the_failure_reaches_the_browser() -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        await session.save()
        session["m"] = 2
        raise ZeroDivisionError

    app = SessionMiddleware(routed(fail=page, read=read), "memory://")
    browser, answer = Browser(app), Answer()
    with pytest.raises(ZeroDivisionError):
        await browser.get("/fail", into=answer)
    browser.keep(answer)

    assert answer.status == 500
    assert len(answer.cookies) == 1
    assert (await browser.get("/read")).body == b"1"


async def test_a_failure_after_the_start_is_raised_and_nothing_more_is_sent() -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    answer = Answer()
    with pytest.raises(ZeroDivisionError):
        await ask(SessionMiddleware(page, "memory://"), into=answer)

    assert len(answer.messages) == 1


async def test_a_nested_value_that_cannot_be_stored_fails_the_response_and_nothing_else() -> None:
    async def spoil(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 2
        session["cart"].append(object())
        await respond(send)

    async def fill(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        session["cart"] = []
        await respond(send)

    async def show(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, repr(session.all()).encode())

    app = SessionMiddleware(routed(fill=fill, spoil=spoil, show=show), "memory://")
    browser = Browser(app)
    await browser.get("/fill")
    with pytest.raises(UnstorableValue, match=r'session\["cart"\]\[0\]'):
        await browser.get("/spoil")

    assert (await browser.get("/show")).body == b"{'n': 2, 'cart': []}"


async def test_a_nested_value_of_a_background_task_that_cannot_be_stored_is_raised() -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["cart"] = []
        await respond(send)
        session["cart"].append(object())
        session["n"] = 2

    app = SessionMiddleware(routed(page=page, read=read), "memory://")
    browser, answer = Browser(app), Answer()
    with pytest.raises(UnstorableValue):
        await browser.get("/page", into=answer)
    browser.keep(answer)

    assert (await browser.get("/read")).body == b"2"


# --- when the store fails ------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [*NOT_STORED, *IN_DOUBT])
async def test_a_store_that_does_not_store_makes_the_answer_a_503(fault: Fault) -> None:
    store = RemoteStore()
    app = SessionMiddleware(write, store, QUICK)
    async with running_manager(app):
        browser = Browser(app)
        await browser.get()
        store.fault = fault
        answers = [await browser.get(), await Browser(app).get()]
        store.fault = Fault.NONE

    for answer in answers:
        assert answer.status == 503
        assert answer.cookies == []
        assert answer.values(b"retry-after") == ["5"]
        assert answer.is_complete
        assert answer.body.startswith(b"503 ")


async def test_after_a_503_the_cookie_is_good_as_soon_as_the_store_is_back() -> None:
    store = RemoteStore()
    app = SessionMiddleware(write, store, QUICK)
    async with running_manager(app):
        browser = Browser(app)
        await browser.get()
        store.load_error = StoreUnavailable("away")
        refused = await browser.get()
        store.load_error = None
        answer = await browser.get()

    assert (refused.status, refused.cookies) == (503, [])
    assert (answer.status, answer.cookies) == (200, [])


@pytest.mark.parametrize("handles", [False, True], ids=["raises", "answers for itself"])
async def test_a_load_that_failed_is_a_503_whatever_the_application_makes_of_it(
    handles: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            session.get("n")
        except StoreUnavailable:
            if not handles:
                raise
        await respond(send, b"all is well")

    store = RemoteStore()
    store.load_error = StoreUnavailable("away")
    app = SessionMiddleware(page, store)
    async with running_manager(app):
        answer = await ask(app, cookie=f"{COOKIE}={'A' * 22}.{'B' * 32}")

    assert answer.status == 503
    assert b"all is well" not in answer.body
    assert "answering 503" in caplog.text


async def test_a_load_that_failed_and_another_error_are_a_503_and_raised() -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            session.get("n")
        finally:
            raise ZeroDivisionError

    store = RemoteStore()
    store.load_error = StoreUnavailable("away")
    app = SessionMiddleware(page, store)
    answer = Answer()
    async with running_manager(app):
        with pytest.raises(ZeroDivisionError):
            await ask(app, cookie=f"{COOKIE}={'A' * 22}.{'B' * 32}", into=answer)

    assert answer.status == 503


async def test_a_load_that_failed_and_that_nobody_needed_harms_nobody() -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send)

    store = RemoteStore()
    store.load_error = StoreUnavailable("away")
    app = SessionMiddleware(page, store)
    async with running_manager(app):
        answer = await ask(app, cookie=f"{COOKIE}={'A' * 22}.{'B' * 32}")

    assert answer.status == 200


@pytest.mark.parametrize("fault", [Fault.REFUSES, Fault.UNSURE_AFTER])
async def test_a_save_that_fails_where_the_application_asked_for_it_is_a_503(fault: Fault) -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        await session.save()
        await respond(send)

    store = RemoteStore()
    store.fault = fault
    app = SessionMiddleware(page, store)
    async with running_manager(app):
        answer = await ask(app)
        store.fault = Fault.NONE

    assert (answer.status, answer.cookies) == (503, [])


async def test_after_a_503_what_the_application_still_sends_and_writes_is_ignored() -> None:
    store = RemoteStore()

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["cart"] = []
        await send({"type": "http.response.start", "status": 200, "headers": []})
        session["cart"].append("tea")
        await send({"type": "http.response.body", "body": b"all is well"})

    app = SessionMiddleware(routed(write=write, page=page, read=read), store, QUICK)
    async with running_manager(app):
        browser = Browser(app)
        await browser.get("/write")
        for fault in (Fault.REFUSES, Fault.TOO_BUSY):
            store.fault = fault
            answer = await browser.get("/page")
            assert answer.status == 503
            assert b"all is well" not in answer.body
        store.fault = Fault.NONE


async def test_a_store_that_fails_after_the_start_leaves_the_response_unfinished() -> None:
    store = RemoteStore()

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        store.faults = [Fault.REFUSES, Fault.REFUSES, Fault.REFUSES]
        session["n"] = 5
        await send({"type": "http.response.body", "body": b"done"})

    app = SessionMiddleware(routed(write=write, page=page), store, QUICK)
    answer = Answer()
    async with running_manager(app):
        browser = Browser(app)
        await browser.get("/write")
        with pytest.raises(StoreUnavailable):
            await browser.get("/page", into=answer)

    assert not answer.is_complete


# --- rollback ------------------------------------------------------------------------------------


async def _raise(send: Send) -> None:
    raise ZeroDivisionError


async def _answer_500(send: Send) -> None:
    await respond(send, status=500)


@pytest.mark.parametrize("fail", [_raise, _answer_500])
@pytest.mark.parametrize("on_error", ["commit", "rollback"])
@pytest.mark.parametrize("save", [False, True], ids=["unsaved", "saved"])
async def test_what_a_failed_request_wrote_is_kept_or_dropped_as_configured(
    fail: Callable[[Send], Awaitable[None]], on_error: str, save: bool
) -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 2
        session["cart"].append("tea")
        if save:
            await session.save()
        await checkpoint()
        await fail(send)

    async def begin(scope: Scope, receive: Receive, send: Send) -> None:
        session.update(n=1, cart=[])
        await respond(send)

    async def show(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, repr(session.all()).encode())

    app = SessionMiddleware(
        routed(begin=begin, page=page, show=show), RemoteStore(), SessionConfig(on_error=on_error)
    )
    async with running_manager(app):
        browser = Browser(app)
        await browser.get("/begin")
        with suppress(ZeroDivisionError):
            await browser.get("/page")
        shown = await browser.get("/show")

    kept = save or on_error == "commit"
    assert shown.body == (b"{'n': 2, 'cart': ['tea']}" if kept else b"{'n': 1, 'cart': []}")


# --- websockets ----------------------------------------------------------------------------------


async def chat(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, then note every text in the session's log."""
    assert (await receive())["type"] == "websocket.connect"
    session.setdefault("log", [])
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        session["log"].append(message["text"])
        await send({"type": "websocket.send", "text": str(len(session["log"]))})


async def show_log(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, " ".join(session["log"]).encode())


def both(websocket: Page, http: Page) -> Page:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (websocket if scope["type"] == "websocket" else http)(scope, receive, send)

    return app


async def test_the_cookie_travels_with_the_acceptance_of_a_websocket() -> None:
    app = SessionMiddleware(both(chat, show_log), "memory://")

    accepted, *rest = await converse(app, ["a", "b"])

    browser = Browser(app)
    browser.keep(Answer([accepted]))
    assert browser.id is not None
    assert [message["text"] for message in rest] == ["1", "2"]
    assert (await browser.get()).body == b"a b"


async def test_nested_changes_are_stored_at_every_message() -> None:
    store = MemoryStore()
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        session["log"] = []
        await send({"type": "websocket.accept"})
        for n in range(3):
            session["log"].append(n)
            await (receive() if n % 2 else send({"type": "websocket.send", "text": ""}))
            [summary] = await store.scan(0.0)
            record = store.load_nowait(summary.handle, 0.0)
            assert record is not None
            seen.append(record.items["log"])

    await converse(SessionMiddleware(app, store))

    assert seen == [b"[0]", b"[0,1]", b"[0,1,2]"]


@pytest.mark.parametrize(
    ("extensions", "kinds"),
    [
        (None, ["websocket.close"]),
        ({}, ["websocket.close"]),
        (
            {"websocket.http.response": {}},
            ["websocket.http.response.start", "websocket.http.response.body"],
        ),
    ],
)
async def test_a_websocket_whose_session_cannot_be_loaded_is_denied(
    extensions: dict[str, Any] | None, kinds: list[str]
) -> None:
    store = RemoteStore()
    store.load_error = StoreUnavailable("away")
    app = SessionMiddleware(chat, store)
    async with running_manager(app):
        cookie = f"{COOKIE}={'A' * 22}.{'B' * 32}"
        sent = await converse(app, cookie=cookie, extensions=extensions)

    assert [message["type"] for message in sent] == kinds
    assert sent[0].get("code", 1011) == 1011
    assert sent[0].get("status", 503) == 503


async def test_a_websocket_whose_new_session_cannot_be_stored_is_denied() -> None:
    store = RemoteStore()
    store.fault = Fault.REFUSES
    app = SessionMiddleware(chat, store)
    async with running_manager(app):
        sent = await converse(app, ["a"])
        store.fault = Fault.NONE

    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_a_denial_response_carries_the_cookie() -> None:
    async def deny(scope: Scope, receive: Receive, send: Send) -> None:
        session["denied"] = True
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    [start, body] = await converse(SessionMiddleware(deny, "memory://"))

    assert b"set-cookie" in dict(start["headers"])
    assert body["body"] == b"no"


async def test_a_websocket_that_the_app_has_closed_is_not_closed_again() -> None:
    async def close_and_fail(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 4401})
        raise StoreUnavailable("somebody else's store")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    app = SessionMiddleware(close_and_fail, "memory://")
    scope = {**http_scope("/", None, "wss"), "type": "websocket", "subprotocols": []}
    with pytest.raises(StoreUnavailable):
        await app(scope, never, send)

    assert [message["code"] for message in sent] == [4401]


async def test_a_websocket_that_is_closed_unanswered_starts_no_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def close(scope: Scope, receive: Receive, send: Send) -> None:
        session["denied"] = True
        await send({"type": "websocket.close", "code": 1000})

    store = MemoryStore()
    [message] = await converse(SessionMiddleware(close, store))

    assert message["type"] == "websocket.close"
    assert repr(store) == "<MemoryStore sessions=0>"
    assert "no response could carry its id" in caplog.text


async def test_a_websocket_that_fails_after_an_explicit_save_sends_nothing() -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        await session.save()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await converse(SessionMiddleware(fail, "memory://"))


# --- lifespan ------------------------------------------------------------------------------------


async def test_the_store_is_open_between_startup_and_shutdown() -> None:
    app = SessionMiddleware(routed(write=write), "memory://")

    async with running(app):
        assert "running" in repr(app.manager)
        await ask(app, "/write")

    assert "idle" in repr(app.manager)


class Closing(MemoryStore):
    """Notes in a list when it is closed, which takes a while."""

    def __init__(self, order: list[str]) -> None:
        super().__init__()
        self._order = order

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.wait_all_tasks_blocked()
        self._order.append("closed")


async def _lifespan_in_a_child_task(receive: Receive, send: Send) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: obey_lifespan(receive, send))


@pytest.mark.parametrize("lifespan", [obey_lifespan, _lifespan_in_a_child_task])
async def test_the_store_is_closed_before_the_server_hears_that_all_is_over(
    lifespan: Callable[[Receive, Send], Awaitable[None]],
) -> None:
    order: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await lifespan(receive, send)

    inbox = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Message:
        await checkpoint()
        return inbox.pop(0)

    async def send(message: Message) -> None:
        order.append(message["type"].removeprefix("lifespan."))
        if message["type"] == "lifespan.shutdown.complete":
            tasks.cancel_scope.cancel()  # as servers do

    async with anyio.create_task_group() as tasks:
        await SessionMiddleware(app, Closing(order))({"type": "lifespan"}, receive, send)

    assert order == ["startup.complete", "closed", "shutdown.complete"]


async def test_an_app_that_asks_for_more_after_its_shutdown_does_not_keep_the_server_waiting() -> (
    None
):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            to_app, inbox = anyio.create_memory_object_stream[Message](1)
            outbox, from_app = anyio.create_memory_object_stream[Message](1)
            wrapped = SessionMiddleware(app, "memory://")
            with to_app, inbox, outbox, from_app:
                tasks.start_soon(wrapped, {"type": "lifespan"}, inbox.receive, outbox.send)
                answers = []
                for kind in ("startup", "shutdown"):
                    await to_app.send({"type": f"lifespan.{kind}"})
                    answers.append((await from_app.receive())["type"])
                tasks.cancel_scope.cancel()

    assert answers == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_an_app_can_be_started_again() -> None:
    app = SessionMiddleware(routed(write=write), "memory://")
    browser = Browser(app)

    for _ in range(2):
        async with running(app):
            await browser.get("/write")

    assert browser.id is not None


@pytest.mark.parametrize("error", [StoreUnavailable, OSError], ids=["the store", "a bug"])
async def test_a_store_that_cannot_be_opened_fails_the_startup_and_says_why(
    error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    class Closed(MemoryStore):
        async def __aenter__(self) -> Closed:
            raise error("sessions.db cannot be opened")

    app = SessionMiddleware(routed(), Closed())

    [message] = await ask_raw(app, {"type": "lifespan"})

    assert message == {
        "type": "lifespan.startup.failed",
        "message": "sessions.db cannot be opened",
    }
    assert error.__name__ in caplog.text


async def test_an_app_without_a_lifespan_is_left_to_say_so_itself() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError("http only")
        await write(scope, receive, send)

    wrapped = SessionMiddleware(app, "memory://")
    with pytest.raises(ValueError, match="http only"):
        await ask_raw(wrapped, {"type": "lifespan"})

    assert (await ask(wrapped)).status == 200


async def _pages(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await obey_lifespan(receive, send)
    else:
        await _ignore_lifespan(scope, receive, send)


async def _ignore_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await {"/write": write, "/read": read}[scope["path"]](scope, receive, send)


@pytest.mark.parametrize("asked", [False, True], ids=["no lifespan", "an ignored lifespan"])
@pytest.mark.parametrize("url", ["memory://", "sqlite:///"])
async def test_without_a_lifespan_sessions_work_all_the_same(
    tmp_path: Path, url: str, asked: bool
) -> None:
    wrapped = SessionMiddleware(
        _ignore_lifespan, f"{url}{tmp_path / 's.db'}" if "sqlite" in url else url
    )
    if asked:
        assert await ask_raw(wrapped, {"type": "lifespan"}) == []

    browser = Browser(wrapped)
    for _ in range(3):
        await browser.get("/write")

    assert (await browser.get("/read")).body == b"3"
    await wrapped.manager.store.__aexit__(None, None, None)


async def test_an_app_that_fails_in_its_lifespan_fails_as_itself() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await obey_lifespan(receive, send)

    async def receive() -> Message:
        raise ZeroDivisionError

    async def send(message: Message) -> None: ...

    with pytest.raises(ZeroDivisionError):
        await SessionMiddleware(app, "memory://")({"type": "lifespan"}, receive, send)


async def test_what_an_app_says_of_its_failed_shutdown_is_passed_on() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.failed", "message": "it hurt"})
        raise ZeroDivisionError

    sent: list[str] = []

    async def send(message: Message) -> None:
        sent.append(message["type"])

    with pytest.raises(ZeroDivisionError):
        await SessionMiddleware(app, "memory://")({"type": "lifespan"}, never, send)

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.failed"]


async def test_a_manager_that_others_use_too_serves_the_middleware() -> None:
    sessions = SessionManager("memory://")
    app = SessionMiddleware(_pages, sessions)
    browser = Browser(app)

    async with running(app):
        assert sessions.is_running
        await browser.get("/write")
        [summary] = await sessions.store.scan(0)
        async with sessions.open_handle(summary.handle) as job:
            job["n"] = 7
        assert (await browser.get("/read")).body == b"7"
    assert not sessions.is_running


async def test_a_manager_that_is_running_is_left_running() -> None:
    async with SessionManager("memory://") as sessions:
        async with running(SessionMiddleware(_pages, sessions)):
            pass

        assert sessions.is_running


def test_a_manager_brings_its_own_configuration() -> None:
    sessions = SessionManager("memory://")

    with pytest.raises(ConfigError, match=r"store=SessionManager\(store, config\)"):
        SessionMiddleware(_pages, sessions, SessionConfig())


# --- leaving early -------------------------------------------------------------------------------


async def test_a_cancelled_request_closes_its_session_and_keeps_what_it_wrote() -> None:
    kept: list[Any] = []

    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 7
        kept.append(scope["session"])
        await anyio.sleep_forever()

    app = SessionMiddleware(routed(write=write, hang=hang, read=read), RemoteStore())
    async with running_manager(app):
        browser = Browser(app)
        await browser.get("/write")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(browser.get, "/hang")
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

        with pytest.raises(SessionClosed):
            kept[0]["n"]
        assert (await browser.get("/read")).body == b"7"


async def test_a_log_record_is_made_where_a_late_write_is_void(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session.get("n")
        assert await app.manager.revoke(str(session.handle))
        session["n"] = 9
        session["m"] = 9
        await respond(send)

    app = SessionMiddleware(routed(write=write, page=page), "memory://")
    browser = Browser(app)
    await browser.get("/write")
    answer = await browser.get("/page")

    assert (answer.status, answer.cookies) == (200, [])
    assert caplog.text.count("are void") == 1


async def test_worker_threads_write_into_the_session_of_their_request() -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.to_thread.run_sync(lambda: session.update(n=1))
        await respond(send)

    app = SessionMiddleware(routed(page=page, read=read), "memory://")
    browser = Browser(app)
    await browser.get("/page")

    assert (await browser.get("/read")).body == b"1"
