"""One request after the other on real sockets: what the app sees, and what reaches the wire."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from contextvars import ContextVar, copy_context
from time import monotonic
from typing import Any

import anyio
import pytest

from minisession.server.config import ServerConfig
from minisession.server.connection import Connection
from minisession.server.errors import ClientDisconnected
from minisession.server.exchange import Exchange
from minisession.server.service import Service
from minisession.server.transport import Transport
from tests.server.kit import (
    NO_ERRORS,
    answer,
    client_of,
    connect,
    echo,
    get,
    http_app,
    read_body,
    reply,
    request,
    serving,
)
from tests.server.memory import MemoryTransport

pytestmark = pytest.mark.anyio

BIG = b"x" * 400_000
user: ContextVar[str] = ContextVar("user")


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]


@http_app
async def who(scope: Any, receive: Any, send: Any) -> None:
    """Says which user it finds, and leaves its own."""
    found = user.get("nobody")
    user.set(scope["path"])
    await read_body(receive)
    user.set(scope["path"] + " after the body")
    await reply(send, found.encode())
    user.set(scope["path"] + " after the response")


@pytest.mark.parametrize("body", [b"", b"small", BIG], ids=len)
async def test_no_request_sees_the_context_of_another_on_its_connection(body: bytes) -> None:
    requests = [
        request("POST", f"/{name}", f"Content-Length: {len(body)}", body=body) for name in "abcd"
    ]
    async with client_of(who) as client:
        for each in requests:
            await client.send(each)
            assert await client.read(len(answer(b"nobody"))) == answer(b"nobody")

        await client.send(b"".join(requests))
        assert await client.read(4 * len(answer(b"nobody"))) == 4 * answer(b"nobody")


async def test_a_request_sees_the_context_in_which_the_server_was_started() -> None:
    user.set("root")

    async with client_of(who) as client:
        await client.send(get("/a") + get("/b"))
        assert await client.read(2 * len(answer(b"root"))) == 2 * answer(b"root")


async def test_a_connection_leaves_its_task_to_an_app_that_goes_on_after_its_response() -> None:
    tasks: list[int] = []
    done = anyio.Event()

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        tasks.append(anyio.get_current_task().id)
        await reply(send, b"")
        if scope["path"] == "/background":
            await done.wait()

    async with client_of(app) as client:
        for path in ("/", "/background", "/"):
            await client.send(get(path))
            await client.read(len(answer(b"")))
        done.set()

    assert tasks[0] == tasks[1] != tasks[2]


async def test_the_end_of_a_response_may_come_from_another_task_of_the_app() -> None:
    done = anyio.Event()

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/next":
            done.set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reply, send, scope["raw_path"])
            await done.wait()

    async with client_of(app) as client:
        await client.send(get("/first") + get("/next"))

        expected = answer(b"/first") + answer(b"/next")
        assert await client.read(len(expected)) == expected


async def test_an_exchange_shows_its_state() -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply(send, repr(send.__self__).encode())

    async with client_of(app) as client:
        await client.send(get())
        assert await client.read_until(b">>")


async def test_the_scope_is_asgi_to_the_letter() -> None:
    scopes: list[Any] = []

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await reply(send, b"")

    async with serving(app, root_path="/app") as address, await connect(address) as client:
        await client.send(get("/a%20b?c=d", "X-Y: z"))
        await client.read(len(answer(b"")))

    scope = scopes[0]
    assert scope.pop("client")[0] == "127.0.0.1"
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/app/a b",
        "raw_path": b"/app/a%20b",
        "query_string": b"c=d",
        "root_path": "/app",
        "headers": [(b"host", b"a"), (b"x-y", b"z")],
        "server": address,
        "state": {},
    }


async def test_the_server_as_a_whole_is_mounted_nowhere() -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply(send, repr((scope["path"], scope["raw_path"])).encode())

    async with client_of(app, root_path="/app") as client:
        await client.send(request("OPTIONS", "*"))

        assert await client.read_until(b")") == answer(b"('*', b'*')")


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with client_of(echo) as client:
        await client.send(b"".join(get(f"/{i}") for i in range(10)))

        expected = b"".join(answer(b"/%d " % i) for i in range(10))
        assert await client.read(len(expected)) == expected


async def test_a_chunked_body_arrives_byte_by_byte() -> None:
    raw = request("POST", "/", "Transfer-Encoding: chunked", body=b"2\r\nhi\r\n0\r\nA: b\r\n\r\n")
    async with client_of(echo) as client:
        await client.send(*(raw[i : i + 1] for i in range(len(raw))))

        assert await client.read(len(answer(b"/ hi"))) == answer(b"/ hi")


async def test_100_continue_is_sent_only_when_the_app_asks_for_the_body() -> None:
    headers = ("Content-Length: 2", "Expect: 100-continue")
    asked = anyio.Event()

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/early":
            await reply(send, b"no")
            return
        asked.set()
        await reply(send, await read_body(receive) or b"")

    async with client_of(app) as client:
        await client.send(request("POST", "/", *headers))
        assert await client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"hi")
        assert await client.read(len(answer(b"hi"))) == answer(b"hi")

        await client.send(request("POST", "/early", *headers))
        written = await client.read_all()
        assert b"HTTP/1.1 200 OK" in written
        assert b"\r\nconnection: close\r\n" in written


async def test_what_an_app_did_not_read_is_dropped() -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply(send, scope["raw_path"])

    async with client_of(app) as client:
        await client.send(request("POST", "/1", "Content-Length: 40000"))
        assert await client.read(len(answer(b"/1"))) == answer(b"/1")
        await client.send(b"x" * 40_000 + get("/2"))
        assert await client.read(len(answer(b"/2"))) == answer(b"/2")


@pytest.mark.parametrize("body", [b"Z\r\n" + get("/smuggled"), b"11000\r\n" + b"x" * 0x11000])
async def test_a_body_that_cannot_be_dropped_ends_the_connection(body: bytes) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply(send, b"early")

    async with client_of(app) as client:
        await client.send(request("POST", "/", "Transfer-Encoding: chunked", body=body))

        assert await client.read_all() == answer(b"early")


async def test_a_large_upload_does_not_eat_an_early_response() -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply(send, b"early", 413)

    async with client_of(app) as client:
        await client.send(request("POST", "/", "Content-Length: 8000000", body=b"x" * 8_000_000))

        assert (await client.read_all()).endswith(b"early")


async def test_a_background_task_of_the_app_delays_nobody() -> None:
    done = anyio.Event()

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply(send, scope["raw_path"])
        if scope["path"] == "/background":
            await done.wait()
        else:
            done.set()

    async with client_of(app) as client:
        await client.send(get("/background") + get("/next"))

        expected = answer(b"/background") + answer(b"/next")
        assert await client.read(len(expected)) == expected


@pytest.mark.parametrize(
    "error", [RuntimeError("secret"), ExceptionGroup("g", [OSError("secret")])]
)
async def test_an_error_before_the_start_is_a_500_without_details(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    async with client_of(app) as client:
        await client.send(get("/boom"))
        written = await client.read_all()

    assert written.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"secret" not in written
    assert "GET /boom: the app failed" in caplog.text
    assert "secret" in caplog.text


async def test_an_error_after_the_start_cuts_the_response_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        raise RuntimeError

    async with client_of(app) as client:
        await client.send(get())
        assert (await client.read_all()).endswith(b"\r\n\r\n4\r\npart\r\n")

        assert "the app failed" in caplog.text


async def test_a_response_that_only_the_end_delimits_is_cut_off_with_a_reset() -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        await read_body(receive)
        await receive()
        raise RuntimeError

    async with client_of(app) as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        await client.read_until(b"part")
        await client.stream.send_eof()

        with pytest.raises(anyio.BrokenResourceError):
            await client.read(1)


@pytest.mark.parametrize("has_started", [False, True])
async def test_an_app_that_returns_without_a_response_is_reported(
    has_started: bool, caplog: pytest.LogCaptureFixture
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if has_started:
            await send({"type": "http.response.start", "status": 200, "headers": []})

    async with client_of(app) as client:
        await client.send(get())

        assert (await client.read_all()).startswith(b"HTTP/1.1 500 ")
    assert "the app returned while the response was: waiting for" in caplog.text


async def test_a_message_that_asgi_does_not_allow_fails_the_app(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply(send, b"ok")
        await send({"type": "http.response.body", "body": b"more"})

    async with client_of(app) as client:
        await client.send(get() + get())
        assert await client.read(2 * len(answer(b"ok"))) == 2 * answer(b"ok")

    assert "AppProtocolError" in caplog.text


@pytest.mark.parametrize("make", NO_ERRORS)
@pytest.mark.parametrize("when", ["before", "within", "after"])
async def test_an_exception_that_is_no_error_costs_only_its_own_connection(
    make: Any, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if when == "within":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
        elif when == "after":
            await reply(send, b"ok")
        raise await make()

    async with client_of(app) as client:
        await client.send(get())
        written = await (client.read(len(answer(b"ok"))) if when == "after" else client.read_all())
        await anyio.wait_all_tasks_blocked()

    start = {"before": b"HTTP/1.1 500 ", "within": b"HTTP/1.1 200 ", "after": answer(b"ok")}[when]
    assert written.startswith(start)
    assert not written.endswith(b"0\r\n\r\n")
    assert set(complaints(caplog)) == {"GET /: the app failed"}


@pytest.mark.parametrize("make", NO_ERRORS)
async def test_a_server_goes_on_after_an_exception_that_is_no_error(make: Any) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/stray":
            raise await make()
        await reply(send, b"ok")

    async with serving(app) as address:
        async with await connect(address) as client:
            await client.send(get("/stray"))
            assert (await client.read_all()).startswith(b"HTTP/1.1 500 ")
        async with await connect(address) as client:
            await client.send(get())
            assert await client.read(len(answer(b"ok"))) == answer(b"ok")


class Suspension:
    """Waits for nobody."""

    def __await__(self) -> Any:
        yield


def test_an_exchange_that_nobody_runs_on_closes_its_app_and_calls_that_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await Suspension()
        finally:
            ended.append(scope["path"])

    tasks: Any = None  # none is started
    service = Service(app, ServerConfig(), tasks, copy_context(), {})
    connection = Connection(service.config, MemoryTransport([], 1), None, None)
    connection.reader.feed(get("/x"))
    found = connection.reader.next_request()
    assert found is not None
    running = Exchange(service, connection, found, lambda cycle: None).run()
    running.send(None)

    running.close()

    assert ended == ["/x"]
    assert complaints(caplog) == []


async def test_an_app_that_fails_while_it_is_cancelled_with_the_server_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            await reply(send, b"ok")
            try:
                await anyio.sleep_forever()
            finally:
                raise RuntimeError("a bug of its clean-up")

    with anyio.fail_after(5):
        async with serving(app) as address:
            client = await connect(address)
            await client.send(get())
            await client.read(len(answer(b"ok")))
            await anyio.wait_all_tasks_blocked()  # and now the server is cancelled
        async with client:
            assert await client.read_all() == b""

    assert complaints(caplog) == ["GET /: the app failed"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # only there tasks can be cancelled
@pytest.mark.parametrize("swallows", [True, False])
async def test_an_app_that_cancels_its_own_task_harms_nobody(swallows: bool) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        found = task.cancelling()
        await reply(send, b"%d" % found)
        task.cancel()
        if swallows:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    async with client_of(app) as client:
        for _ in range(3):
            await client.send(get())
            assert await client.read(len(answer(b"0"))) == answer(b"0")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # only there tasks can be cancelled
async def test_a_cancellation_that_comes_too_late_costs_only_its_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks: list[Any] = []

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        tasks.append(asyncio.current_task())
        await reply(send, b"ok")

    async with serving(app) as address:
        async with await connect(address) as client:
            await client.send(get())
            await client.read(len(answer(b"ok")))
            await anyio.wait_all_tasks_blocked()

            tasks[0].cancel()

            assert await client.read_all() == b""
        async with await connect(address) as client:
            await client.send(get())
            assert await client.read(len(answer(b"ok"))) == answer(b"ok")

    assert "an app cancelled a task that was not its own" in caplog.text


async def test_a_client_that_sends_many_requests_at_once_takes_turns_with_others() -> None:
    served: list[str] = []

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        served.append(scope["path"])
        await reply(send, b"")

    async with (
        serving(app) as address,
        await connect(address) as greedy,
        await connect(address) as modest,
    ):
        await greedy.send(get("/many") * 1000)
        await modest.send(get("/one"))
        with anyio.fail_after(5):
            await modest.read(len(answer(b"")))
            await greedy.read(1000 * len(answer(b"")))

    assert served.index("/one") < 900


async def test_an_app_that_only_sends_takes_turns_with_others() -> None:
    has_heard = anyio.Event()

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/enough":
            has_heard.set()
            await reply(send, b"")
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not has_heard.is_set():
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with serving(app) as address, await connect(address) as endless:
        await endless.send(get("/endless"))
        await endless.read(10_000)
        async with await connect(address) as other:
            await other.send(get("/enough"))
            with anyio.fail_after(5):
                await other.read(len(answer(b"")))


class Waiter:
    """An app that records what `receive` says after the body, and whether it ran to its end."""

    def __init__(self, *, sends_first: bool = False) -> None:
        self.entered, self.finished = anyio.Event(), anyio.Event()
        self.go_on = anyio.Event()
        self.messages: list[str] = []
        self.errors: list[type] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await read_body(receive)
        self.entered.set()
        await self.wait(receive)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": BIG, "more_body": True})
        except OSError as error:
            self.errors.append(type(error))
        with pytest.raises(OSError, match="gone"):
            await send({"type": "http.response.body", "body": b"", "more_body": True})
        self.messages.append((await receive())["type"])
        self.finished.set()

    async def wait(self, receive: Any) -> None:
        self.messages.append((await receive())["type"])


async def test_a_client_that_hangs_up_cancels_nothing_and_is_noticed() -> None:
    app = Waiter()
    async with serving(app) as address:
        async with await connect(address) as client:
            await client.send(get())
            await app.entered.wait()
        with anyio.fail_after(5):
            await app.finished.wait()

    assert app.messages == ["http.disconnect", "http.disconnect"]
    assert [error.__name__ for error in app.errors] == ["ClientDisconnected"]


async def test_a_disconnect_is_noticed_by_a_receive_that_may_not_wait() -> None:
    class Poller(Waiter):
        async def wait(self, receive: Any) -> None:
            await self.go_on.wait()
            with anyio.CancelScope() as scope:
                scope.cancel()
                await super().wait(receive)

    app = Poller()
    async with serving(app) as address:
        async with await connect(address) as client:
            await client.send(get())
            await app.entered.wait()
        await anyio.wait_all_tasks_blocked()
        app.go_on.set()
        with anyio.fail_after(5):
            await app.finished.wait()

    assert app.messages[0] == "http.disconnect"


async def test_an_app_that_lets_the_disconnect_pass_is_not_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    finished = anyio.Event()

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pour, send)
        finally:
            finished.set()

    async def pour(send: Any) -> None:
        while True:
            await send({"type": "http.response.body", "body": BIG, "more_body": True})

    async with serving(app) as address:
        async with await connect(address) as client:
            await client.send(get())
            await client.read(10)
        with anyio.fail_after(5):
            await finished.wait()

    assert complaints(caplog) == []


async def until_gone(send: Any) -> None:
    """Send until that raises the server's error."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": BIG, "more_body": True})


class WordOfAFramework(Exception):
    """What a framework raises when `send` has told it that the client is gone."""


@pytest.mark.parametrize("has_bug", [False, True])
async def test_what_an_app_makes_of_the_disconnect_is_not_an_error_but_its_own_bug_is(
    has_bug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    finished = anyio.Event()

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        finished.set()
        if has_bug:
            with contextlib.suppress(OSError):
                await until_gone(send)
            raise RuntimeError("merely afterwards")
        try:
            await until_gone(send)
        except OSError:
            raise WordOfAFramework  # noqa: B904 - frameworks do not say from what

    async with serving(app) as address:
        async with await connect(address) as client:
            await client.send(get())
            await client.read(10)
        with anyio.fail_after(5):
            await finished.wait()
            await anyio.wait_all_tasks_blocked()

    assert complaints(caplog) == (["GET /: the app failed"] if has_bug else [])


async def test_another_clients_disconnect_is_no_excuse(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[OSError] = []
    has_error = anyio.Event()

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/same":
            raise errors[0]
        try:
            await until_gone(send)
        except OSError as error:
            errors.append(error)
            has_error.set()

    async with serving(app) as address:
        async with await connect(address) as client:
            await client.send(get("/gone"))
            await client.read(10)
        with anyio.fail_after(5):
            await has_error.wait()
            async with await connect(address) as client:
                await client.send(get("/same"))
                assert (await client.read_all()).startswith(b"HTTP/1.1 500 ")

    assert complaints(caplog) == ["GET /same: the app failed"]


async def test_a_receive_that_waits_ends_with_the_response() -> None:
    messages: list[str] = []

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def listen() -> None:
            messages.append((await receive())["type"])

        await read_body(receive)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            tasks.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            await reply(send, b"ok")

    async with client_of(app) as client:
        for _ in range(2):
            await client.send(get())
            assert await client.read(len(answer(b"ok"))) == answer(b"ok")

    assert messages == ["http.disconnect"] * 4


async def test_what_a_client_sends_ahead_stays_in_the_kernel_beyond_a_bound() -> None:
    app = Waiter()
    sent = 0
    async with client_of(app, write_timeout=0.1) as client:
        await client.send(get())
        await app.entered.wait()

        with anyio.move_on_after(0.3):
            while True:
                await client.send(BIG)
                sent += len(BIG)

        assert app.messages == []
        assert sent < 100 * len(BIG)


async def test_a_slow_reader_stops_the_app_and_is_cut_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sent = 0
    finished = anyio.Event()

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": BIG, "more_body": True})
                sent += len(BIG)
        finally:
            finished.set()

    async with client_of(app, write_timeout=0.2) as client:
        await client.send(get())

        await finished.wait()

        assert sent < 100 * len(BIG)
    assert complaints(caplog) == []


async def test_the_rest_of_a_send_that_was_cancelled_goes_out_first() -> None:
    cancelled = anyio.Event()

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"20000002"), (b"date", b"now")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        with anyio.move_on_after(0.05):
            body = b"x" * 20_000_000
            await send({"type": "http.response.body", "body": body, "more_body": True})
        cancelled.set()
        await send({"type": "http.response.body", "body": b"ok"})

    async with client_of(app) as client:
        await client.send(get())
        await cancelled.wait()
        await client.read_until(b"\r\n\r\n")
        written = await client.read(20_000_002)

    assert written == b"x" * 20_000_000 + b"ok"


async def test_the_rest_of_a_last_send_that_was_cancelled_still_goes_out() -> None:
    cancelled = anyio.Event()

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with anyio.move_on_after(0.05):
            await reply(send, b"x" * 20_000_000)
        cancelled.set()

    async with client_of(app) as client:
        await client.send(get())
        await cancelled.wait()
        await client.read_until(b"\r\n\r\n")

        assert await client.read(20_000_000) == b"x" * 20_000_000


async def test_two_tasks_may_send_parts_of_one_response() -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async with anyio.create_task_group() as tasks:
            for letter in b"ab":
                part = bytes([letter]) * 5_000_000
                tasks.start_soon(
                    send, {"type": "http.response.body", "body": part, "more_body": True}
                )
        await send({"type": "http.response.body", "body": b""})

    async with client_of(app) as client:
        await client.send(get())
        written = await client.read_until(b"\r\n\r\n") + await client.read(10_000_000)

    chunks = written.partition(b"\r\n\r\n")[2]
    assert chunks.startswith(b"4c4b40\r\n")
    assert chunks[8:5_000_008] in (b"a" * 5_000_000, b"b" * 5_000_000)


async def test_a_body_that_is_refused_is_answered_while_the_app_goes_on() -> None:
    app_errors: list[str] = []
    finished = anyio.Event()

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await read_body(receive) is None
        try:
            await reply(send, b"too late")
        except OSError as error:
            app_errors.append(type(error).__name__)
        finished.set()

    async with client_of(app) as client:
        await client.send(request("POST", "/", "Transfer-Encoding: chunked", body=b"Z\r\n"))
        assert (await client.read_all()).startswith(b"HTTP/1.1 400 Bad Request\r\n")
        await finished.wait()

    assert app_errors == ["ClientDisconnected"]


async def test_a_refused_request_line_is_answered_and_the_connection_closed() -> None:
    async with client_of(echo) as client:
        await client.send(b"GET /\r\n\r\n" + get("/never"))

        written = await client.read_all()

    assert written.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert written.count(b"HTTP/1.1 ") == 1


async def test_a_half_closed_client_still_gets_its_response() -> None:
    async with client_of(echo) as client:
        await client.send(get("/x"))
        await client.stream.send_eof()

        assert await client.read_all() == answer(b"/x ")


async def test_a_half_closed_client_sees_that_a_response_was_broken_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Like a framework: it ends its response when it hears that the client is gone."""
        await read_body(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.body", "body": b""})

    async with client_of(app, access_log=True) as client:
        await client.send(get())
        await client.stream.send_eof()

        assert (await client.read_all()).endswith(b"\r\n5\r\nfirst\r\n")
    assert complaints(caplog) == []


async def test_a_client_that_reads_slowly_but_steadily_is_not_cut_off() -> None:
    """What it takes shows in what the kernel still holds, before there is room for more."""
    with closing_pair() as (ours, theirs):
        transport = Transport(ours)
        connection = Connection(ServerConfig(write_timeout=30), transport, None, None)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_until_it_is_gone, connection)
            await anyio.wait_all_tasks_blocked()
            now = monotonic()

            await take(theirs, transport)
            assert not connection.expire(now + 31), "it has taken something"
            assert not connection.expire(now + 60), "its time began anew"
            await take(theirs, transport)
            assert not connection.expire(now + 62)
            assert connection.expire(now + 93), "it took nothing for 31 s"


async def test_a_closed_connection_holds_nothing_for_its_client() -> None:
    with closing_pair() as (ours, _):
        transport = Transport(ours)
        transport.close()

        assert transport.untaken() == 0


async def take(client: socket.socket, transport: Transport) -> None:
    """Read until the server's kernel has noticed, which it does in large steps."""
    before = transport.untaken()
    while transport.untaken() >= before:
        client.recv(100_000)
        await anyio.sleep(0.001)


async def write_until_it_is_gone(connection: Connection) -> None:
    with contextlib.suppress(ClientDisconnected):
        await connection.write(bytes(50_000_000))


@contextlib.contextmanager
def closing_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection over TCP; the server's does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


async def test_the_access_log_has_a_line_per_response(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "minisession.server.access"):
        async with client_of(echo, access_log=True) as client:
            await client.send(get("/a%20b?secret=1"))
            await client.read(len(answer(b"/a%20b ")))

    [record] = caplog.records
    size = len(answer(b"/a%20b "))
    assert record.getMessage().startswith(f'127.0.0.1 "GET /a%20b HTTP/1.1" 200 {size} ')
    assert record.access["milliseconds"] >= 0  # type: ignore[attr-defined]


async def test_the_access_log_counts_what_the_server_says_in_the_apps_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/fails":
            raise RuntimeError
        await read_body(receive)

    sizes = []
    for raw in (
        get("/fails"),
        request("POST", "/bad", "transfer-encoding: chunked", body=b"z\r\n"),
    ):
        async with client_of(app, access_log=True) as client:
            await client.send(raw)
            sizes.append(len(await client.read_all()))

    logged = [record.access["octets"] for record in caplog.records if hasattr(record, "access")]
    assert logged == sizes
