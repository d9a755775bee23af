"""The ASGI lifespan of an app: startup before the first request, shutdown after the last.

Owns the one task in which the app's lifespan runs. An app that does not know lifespan is served
without (ASGI lifespan spec: the server must continue).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from .blame import blame
from .errors import LifespanFailed
from .scope import ASGI_VERSION, ASGIApp, Message

logger = logging.getLogger("minisession.server")


@asynccontextmanager
async def lifespan(
    app: ASGIApp, shutdown_timeout: float, stop: anyio.Event
) -> AsyncIterator[dict[str, Any]]:
    """Start the app, yield its state, and shut it down afterwards, also when cancelled.

    The shutdown is shielded from cancellation and bounded by `shutdown_timeout` seconds; an app
    that takes longer is cancelled. Once `stop` is set nobody waits for the startup any more. It has
    the same time to come to its end, so that what was opened is closed; a cancellation ends it.

    Raises:
        LifespanFailed: the app said that its startup or its shutdown has failed.
    """
    driver = _Driver(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(driver.run)
        try:
            await driver.start(stop)
            if driver.failure is None:
                yield driver.state
        finally:
            try:
                await driver.shut_down(shutdown_timeout)
            finally:
                driver.scope.cancel()
    if driver.failure is not None:
        raise LifespanFailed(driver.failure)


async def _cancel_after(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


class _Driver:
    """Both ends of the conversation. Mutable: what was sent, what was answered, the failure.

    The app's task is shielded (`scope`): a cancelled server still shuts its app down in order.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.state: dict[str, Any] = {}
        self.failure: str | None = None
        self.started = anyio.Event()
        self.scope = anyio.CancelScope(shield=True)
        self._app = app
        self._stopping = anyio.Event()
        self._stopped = anyio.Event()
        self._has_received_startup = False

    async def run(self) -> None:
        """Run the app on the lifespan scope."""
        scope = {
            "type": "lifespan",
            "asgi": {"version": ASGI_VERSION, "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            with self.scope:
                await self._app(scope, self._receive, self._send)
        except BaseException as error:  # noqa: BLE001 - an app may raise anything
            order, failure = blame(error)
            if failure is not None:
                self._log_failure(failure)
            if order is not None:
                raise order from None
        finally:
            self.started.set()
            self._stopped.set()

    async def start(self, stop: anyio.Event) -> None:
        """Wait until the app has started, or until `stop` is set."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_after, stop, tasks.cancel_scope)
            await self.started.wait()
            tasks.cancel_scope.cancel()

    async def shut_down(self, timeout: float) -> None:
        """Tell the app to shut down, and wait until it has, or has ended, or takes too long."""
        has_started = self.started.is_set()
        self._stopping.set()
        with anyio.move_on_after(timeout, shield=has_started) as patience:
            await self._stopped.wait()
        if patience.cancelled_caught:
            what = "shut down" if has_started else "start and shut down"
            logger.error("the app did not %s within %g s", what, timeout)

    def _log_failure(self, error: BaseException) -> None:
        if self.started.is_set():
            logger.error("the app's lifespan failed", exc_info=error)
        elif self._has_received_startup:
            logger.warning("the app raised in lifespan.startup; serving without", exc_info=error)
        else:
            logger.debug("the app does not support lifespan", exc_info=error)

    async def _receive(self) -> Message:
        if not self._has_received_startup:
            self._has_received_startup = True
            return {"type": "lifespan.startup"}
        await self._stopping.wait()
        if self._stopped.is_set():
            await anyio.sleep_forever()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self.started.set()
        elif kind == "lifespan.startup.failed":
            self._fail("startup", message)
        elif kind == "lifespan.shutdown.complete":
            self._stopped.set()
        elif kind == "lifespan.shutdown.failed":
            self._fail("shutdown", message)
        else:
            raise RuntimeError(f"{kind!r} in a lifespan scope: allowed are lifespan.* messages")

    def _fail(self, phase: str, message: Message) -> None:
        self.failure = f"the app's {phase} failed: {message.get('message', '')}"
        self.started.set()
        self._stopped.set()
