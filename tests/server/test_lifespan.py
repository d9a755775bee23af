"""The lifespan: what an app is told, and what the server makes of its answers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest

from minisession.server.errors import LifespanFailed
from minisession.server.lifespan import _Driver, lifespan
from tests.server.kit import NO_ERRORS

pytestmark = pytest.mark.anyio


class App:
    """Records what it is told, and answers as it was made to."""

    def __init__(self, startup: str = "complete", shutdown: str = "complete") -> None:
        self.answers = {"lifespan.startup": startup, "lifespan.shutdown": shutdown}
        self.told: list[str] = []
        self.scope: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        for _ in range(2):
            message = await receive()
            self.told.append(message["type"])
            scope["state"]["db"] = "open"
            answer = self.answers[message["type"]]
            await send({"type": f"{message['type']}.{answer}", "message": "no database"})


async def test_an_app_is_started_and_shut_down_around_the_requests() -> None:
    app = App()

    async with lifespan(app, 1, anyio.Event()) as state:
        assert app.told == ["lifespan.startup"]
        assert state == {"db": "open"}

    assert app.told == ["lifespan.startup", "lifespan.shutdown"]
    assert app.scope["type"] == "lifespan"
    assert app.scope["asgi"]["version"] == "3.0"


async def test_a_failed_startup_is_an_error_and_nothing_is_served() -> None:
    with pytest.raises(LifespanFailed, match="startup failed: no database"):
        async with lifespan(App(startup="failed"), 1, anyio.Event()):
            pytest.fail("must not start")


async def test_a_failed_shutdown_is_an_error() -> None:
    with pytest.raises(LifespanFailed, match="shutdown failed: no database"):
        async with lifespan(App(shutdown="failed"), 1, anyio.Event()):
            pass


async def test_an_app_that_does_not_know_lifespan_is_served_without() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("only http")

    async with lifespan(app, 1, anyio.Event()) as state:
        assert state == {}


async def test_an_app_that_returns_at_once_is_served_without() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        return

    async with lifespan(app, 1, anyio.Event()) as state:
        assert state == {}


async def test_an_app_that_raises_while_it_starts_is_served_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("boom")

    async with lifespan(app, 1, anyio.Event()):
        pass

    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_an_app_that_raises_later_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "http.response.start"})

    async with lifespan(app, 1, anyio.Event()):
        pass

    assert "the app's lifespan failed" in caplog.text
    assert "allowed are lifespan.* messages" in caplog.text


async def test_an_app_that_never_shuts_down_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await anyio.sleep_forever()

    with caplog.at_level(logging.ERROR):
        async with lifespan(app, 0.05, anyio.Event()):
            pass

    assert "did not shut down within 0.05 s" in caplog.text


class Opening:
    """An app that is stopped while it starts; `go_on` is what it does then."""

    def __init__(self, stop: anyio.Event, go_on: Callable[[], Awaitable[object]]) -> None:
        self.stop = stop
        self.go_on = go_on
        self.met: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.met.append((await receive())["type"])
        self.stop.set()
        try:
            await self.go_on()
        except anyio.get_cancelled_exc_class():
            self.met.append("cancelled")
            raise
        await send({"type": "lifespan.startup.complete"})
        self.met.append((await receive())["type"])


async def test_a_startup_that_is_stopped_may_come_to_its_end_and_is_shut_down() -> None:
    stop = anyio.Event()
    app = Opening(stop, partial(anyio.sleep, 0.05))

    async with lifespan(app, 5, stop):
        pass

    assert app.met == ["lifespan.startup", "lifespan.shutdown"]


async def test_a_startup_that_is_stopped_and_hangs_is_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop = anyio.Event()
    app = Opening(stop, anyio.sleep_forever)

    async with lifespan(app, 0.05, stop):
        pass

    assert app.met == ["lifespan.startup", "cancelled"]
    assert "did not start and shut down within 0.05 s" in caplog.text


async def test_a_cancellation_ends_a_startup_that_is_stopped_at_once() -> None:
    stop = anyio.Event()
    app = Opening(stop, anyio.sleep_forever)

    with anyio.fail_after(2), anyio.CancelScope() as scope:
        async with lifespan(app, 60, stop):
            scope.cancel()

    assert app.met == ["lifespan.startup", "cancelled"]


async def test_a_stop_at_the_end_of_a_startup_still_shuts_the_app_down() -> None:
    stop, app = anyio.Event(), App()

    async def starts_and_stops(scope: Any, receive: Any, send: Any) -> None:
        async def send_and_stop(message: Any) -> None:
            stop.set()
            await send(message)

        await app(scope, receive, send_and_stop)

    async with lifespan(starts_and_stops, 1, stop):
        pass

    assert app.told == ["lifespan.startup", "lifespan.shutdown"]


async def test_an_app_that_waits_on_after_its_shutdown_is_ended() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})

    with anyio.fail_after(2):
        async with lifespan(app, 1, anyio.Event()):
            pass


async def test_a_cancelled_server_still_shuts_its_app_down() -> None:
    app = App()

    with anyio.CancelScope() as scope:
        async with lifespan(app, 1, anyio.Event()):
            scope.cancel()
            await anyio.sleep_forever()

    assert app.told == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.parametrize("make", NO_ERRORS)
async def test_a_lifespan_that_ends_with_an_exception_that_is_no_error_is_only_logged(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    has_failed = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        error = await make()
        has_failed.set()
        raise error

    async with lifespan(app, 1, anyio.Event()):
        await has_failed.wait()
        await anyio.wait_all_tasks_blocked()  # a scope that it cancelled would say so here

    assert "the app's lifespan failed" in caplog.text


async def test_a_lifespan_can_end_the_process() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise BaseExceptionGroup("several", [GeneratorExit(), SystemExit(3)])

    running = _Driver(app).run()

    with pytest.raises(SystemExit):
        await running
