"""The life of a server: `serve` inside any anyio task group, `run` for a process of its own.

Owns the order of things: bind, start the app, accept; stop accepting, finish what runs, shut the
app down. Everything else is somebody else's.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from contextvars import copy_context
from typing import Literal

import anyio
import anyio.to_thread
from anyio.abc import TaskStatus

from . import on_asyncio
from .config import ServerConfig
from .errors import CertificateRefused, LifespanFailed
from .forwarded import TrustedProxies
from .lifespan import lifespan
from .listener import accept_forever, sweep_forever
from .scope import ASGIApp
from .service import Service, logger
from .sockets import Address, Listeners
from .tls import create_context


async def serve(
    app: ASGIApp,
    config: ServerConfig | None = None,
    *,
    stop: anyio.Event | None = None,
    task_status: TaskStatus[Sequence[Address]] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI 3 app until `stop` is set or the task is cancelled.

    `await tasks.start(serve, app, config)` returns the bound addresses once requests are accepted;
    for port 0 they hold the real port. It returns none if `stop` was set before the app had
    started, which then has `graceful_timeout` to start and to shut down.

    Setting `stop` stops in good order: no new connections, idle ones are closed at once, running
    requests finish; what is left after `graceful_timeout` is cancelled. A cancellation cancels the
    running requests at once. In both cases the app's lifespan is shut down.

    Raises:
        CertificateRefused: `certfile` or `keyfile` cannot be used.
        OSError: the address cannot be bound.
        LifespanFailed: the app said that its startup or its shutdown failed.
    """
    config = config or ServerConfig()
    stop = anyio.Event() if stop is None else stop
    tls = create_context(config.certfile, config.keyfile or None) if config.certfile else None
    async with AsyncExitStack() as stack:
        listeners = stack.enter_context(Listeners(config))
        await anyio.to_thread.run_sync(listeners.open)
        state = await stack.enter_async_context(lifespan(app, config.graceful_timeout, stop))
        if stop.is_set():
            task_status.started([])
            return
        helpers = await stack.enter_async_context(anyio.create_task_group())
        async with anyio.create_task_group() as tasks:
            service = Service(
                app,
                config,
                tasks,
                copy_context(),
                state,
                on_asyncio.is_running(),
                tls,
                TrustedProxies(config.forwarded_allow_ips) or None,
            )
            helpers.start_soon(sweep_forever, service)
            async with anyio.create_task_group() as accepting:
                for listening in listeners.sockets:
                    accepting.start_soon(accept_forever, service, listening)
                task_status.started(listeners.addresses)
                await stop.wait()
                accepting.cancel_scope.cancel()
            listeners.close()
            _drain(service)
        if tasks.cancel_scope.cancelled_caught:
            logger.warning("requests were cancelled after %g s", config.graceful_timeout)
        helpers.cancel_scope.cancel()


def _drain(service: Service) -> None:
    service.is_stopping = True
    for connection in list(service.connections):
        connection.stop_if_idle()
    deadline = anyio.current_time() + service.config.graceful_timeout
    service.tasks.cancel_scope.deadline = deadline


def run(
    app: ASGIApp,
    config: ServerConfig | None = None,
    backend: Literal["asyncio", "trio"] = "asyncio",
    *,
    on_start: Callable[[Sequence[Address]], None] | None = None,
    stop_after: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Serve an ASGI 3 app in this process, until SIGTERM or SIGINT stops it in good order.

    A second signal cancels what is still running.

    Args:
        app: the application.
        config: None for the defaults.
        backend: the event loop.
        on_start: is called with the bound addresses as soon as requests are accepted.
        stop_after: an async function whose end stops the server like a first signal.

    Raises:
        CertificateRefused: `certfile` or `keyfile` cannot be used.
        OSError: the address cannot be bound.
        LifespanFailed: the app said that its startup or its shutdown failed.
    """
    anyio.run(_serve_until_signal, app, config, on_start, stop_after, backend=backend)


async def _serve_until_signal(
    app: ASGIApp,
    config: ServerConfig | None,
    on_start: Callable[[Sequence[Address]], None] | None,
    stop_after: Callable[[], Awaitable[object]] | None,
) -> None:
    stop = anyio.Event()
    failure: Exception | None = None
    # Outside the task group: on trio, a KeyboardInterrupt that meets one in the middle of its
    # bookkeeping may leave the event loop waiting for ever.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as watch:
            scope = anyio.CancelScope()
            watch.start_soon(_stop_on_signals, signals, stop, scope)
            if stop_after is not None:
                watch.start_soon(_stop_after, stop_after, stop)
            try:
                with scope:
                    await serve(app, config, stop=stop, task_status=_Announcement(on_start))
            except (OSError, CertificateRefused, LifespanFailed) as error:
                failure = error  # not through the task group, which would wrap it
            watch.cancel_scope.cancel()  # and not before: each signal needs somebody to take it
    if failure is not None:
        raise failure


class _Announcement(TaskStatus[Sequence[Address]]):
    """Calls somebody back where a task group would be told that `serve` has started."""

    def __init__(self, on_start: Callable[[Sequence[Address]], None] | None) -> None:
        self._on_start = on_start

    def started(self, value: Sequence[Address] | None = None) -> None:
        if self._on_start is not None and value:
            self._on_start(value)


async def _stop_after(wait: Callable[[], Awaitable[object]], stop: anyio.Event) -> None:
    await wait()
    stop.set()


async def _stop_on_signals(
    signals: AsyncIterable[signal.Signals], stop: anyio.Event, scope: anyio.CancelScope
) -> None:
    async for received in signals:
        if stop.is_set():
            scope.cancel()
        logger.info("stopping on %s", received.name)
        stop.set()
