"""The bundled server from outside: clients that go at any byte, tasks that are struck at any point.

Whatever happens on the wire or to the server's tasks, the session is in a state before or after,
what the client has read is so, and no task, no socket and no thread is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import anyio
import pytest
from anyio.abc import TaskStatus

from minisession import SessionManager
from minisession.server import ServerConfig, serve
from minisession.stores.memory import MemoryStore
from minisession.stores.sqlite import SQLiteStore
from tests.asgi_client import Browser
from tests.cancellation import site as pages
from tests.cancellation.conftest import counted
from tests.cancellation.every_task import EveryTask
from tests.cancellation.left import PATIENCE, descriptors, running_tasks, until_nothing
from tests.cancellation.site import PAGES, Page, Site, Visit
from tests.cancellation.trial import Trial
from tests.cancellation.wire import (
    NAME,
    Address,
    Farewell,
    as_answer,
    connect,
    open_sockets,
    read,
    request,
    say_goodbye,
)
from tests.effort import SOAK, Tally, effort
from tests.tripwire import NATIVE, Blow, cancelled

pytestmark = pytest.mark.anyio

CONFIG = ServerConfig(port=0, graceful_timeout=PATIENCE)

CHOSEN = [
    page
    for page in PAGES
    if SOAK or page.handler in (pages.logs_in, pages.streams_until_the_client_goes)
]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Caller(Visit):
    """A visit over a socket."""

    async def _start_a_session(self) -> None:
        await self.trial.begin()
        self.browser = Browser(self.site.way_in, NAME, "http")
        self.browser.id = self.trial.id

    @property
    def request(self) -> bytes:
        """What the browser sends."""
        return request(self.browser.cookie)

    async def call(self, address: Address) -> None:
        """Ask for the page, and note how much of an answer came before the connection ended."""
        try:
            connected = connect(address)
        except ConnectionError:  # the server has gone before that
            return
        with connected, contextlib.suppress(ConnectionError):
            connected.send(self.request)
            self.answer = as_answer(await read(connected))


@asynccontextmanager
async def serving(site: Site) -> AsyncIterator[Address]:
    async with anyio.create_task_group() as tasks:
        addresses = await tasks.start(serve, site.way_in, CONFIG)
        yield addresses[0]
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("farewell", Farewell, ids=lambda farewell: farewell.name)
@pytest.mark.parametrize("page", CHOSEN, ids=str)
async def test_a_client_may_go_after_any_byte_that_it_has_sent(
    page: Page, farewell: Farewell, tally: Tally
) -> None:
    site = Site(page, MemoryStore())
    async with serving(site) as address:
        caller = Caller(site, Trial(SessionManager(site.middleware.manager.store)))
        await caller.begin()
        points = range(0, len(caller.request) + 1, effort(12, soak=1))
        for sent in [*points, len(caller.request)]:
            await caller.begin()

            connected = connect(address)
            connected.send(caller.request[:sent])
            caller.answer = as_answer(await say_goodbye(connected, farewell))

            await caller.check()
    tally("cancellation points", len(points))


@pytest.mark.parametrize("farewell", [Farewell.CLOSES, Farewell.RESETS], ids=lambda each: each.name)
@pytest.mark.parametrize("page", CHOSEN, ids=str)
async def test_a_client_may_go_after_any_byte_that_it_has_received(
    page: Page, farewell: Farewell, tally: Tally
) -> None:
    site = Site(page, MemoryStore())
    async with serving(site) as address:
        caller = Caller(site, Trial(SessionManager(site.middleware.manager.store)))
        step = effort(24, soak=1)
        for wanted in count(0, step):
            await caller.begin()

            connected = connect(address)
            connected.send(caller.request)
            received = await read(connected, wanted)
            caller.answer = as_answer(received)
            await say_goodbye(connected, farewell)

            await caller.check()
            if len(received) < wanted:
                break
    tally("cancellation points", wanted // step + 1)


class Run(TaskStatus[Sequence[tuple[str, int | None]]]):
    """A server from its start to its end, with one client that calls as soon as it is told where.

    Use it as a context: the client lives in a task of its own, which nobody strikes.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._stop = anyio.Event()
        self._has_started = anyio.Event()
        self._addresses: Sequence[tuple[str, int | None]] = ()

    def started(self, value: Sequence[tuple[str, int | None]] | None = None) -> None:
        """Be told by the server."""
        assert value
        self._addresses = value
        self._has_started.set()

    async def serve(self) -> None:
        """Serve until the client has its answer."""
        await serve(self._caller.site.way_in, CONFIG, stop=self._stop, task_status=self)

    @asynccontextmanager
    async def with_a_client(self) -> AsyncIterator[None]:
        """Let the client call as soon as `serve` accepts; wait until it knows its answer."""
        with anyio.fail_after(2 * PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._call)
                yield
                if not self._addresses:
                    tasks.cancel_scope.cancel()

    async def _call(self) -> None:
        await self._has_started.wait()
        host, port = self._addresses[0]
        assert port is not None
        await self._caller.call((host, port))
        self._stop.set()


class Place:
    """A page and a database, and what there was in this process before they were used."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.folder = folder
        self.store = SQLiteStore(folder / "sessions.db")
        self.site = Site(page, self.store)
        self.looks = SessionManager(SQLiteStore(folder / "sessions.db"))
        self.caller = Caller(self.site, Trial(self.looks))
        self.tasks, self.sockets = running_tasks(), open_sockets()

    async def begin(self) -> None:
        """Make ready for another run."""
        await self.caller.begin()
        await self.close()
        self.run = Run(self.caller)

    async def close(self) -> None:
        """Close the stores; whoever uses them later opens them again."""
        for store in (self.store, self.looks.store):
            await store.__aexit__(None, None, None)

    async def check(self) -> None:
        """Fail if the server has left something, or the session is between two states."""
        await until_nothing(lambda: running_tasks() - self.tasks)
        await until_nothing(lambda: open_sockets() - self.sockets)
        await until_nothing(lambda: descriptors(self.folder))
        assert not self.site.middleware.manager.is_running
        await self.caller.check()
        await self.close()


BLOWS = [
    pytest.param(backend, blow, id=f"{backend}-{blow.__name__}")
    for backend, blows in [("asyncio", [cancelled, *NATIVE]), ("trio", [cancelled])]
    for blow in blows
]


@pytest.mark.parametrize("page", CHOSEN if SOAK else CHOSEN[:1], ids=str)
@pytest.mark.parametrize(("anyio_backend", "blow"), BLOWS)
async def test_a_server_may_be_struck_wherever_it_waits(
    page: Page, blow: Blow, tmp_path: Path, tally: Tally
) -> None:
    place = Place(page, tmp_path)

    async def prepare() -> Awaitable[object]:
        await place.begin()
        return place.run.serve()

    async def struck(operation: Awaitable[object], n: int) -> bool:
        async with place.run.with_a_client():
            return await blow(operation, n)

    assert await counted(struck, tally, prepare, place.check) > 5


@pytest.mark.parametrize("page", CHOSEN if SOAK else CHOSEN[:1], ids=str)
@pytest.mark.parametrize(
    ("anyio_backend", "struck_is"), [("asyncio", "server"), ("asyncio", "task"), ("trio", "server")]
)
async def test_any_task_of_a_server_may_be_struck_wherever_it_waits(
    page: Page, anyio_backend: str, struck_is: str, tmp_path: Path, tally: Tally
) -> None:
    place = Place(page, tmp_path)

    async def prepare() -> Awaitable[object]:
        await place.begin()
        return place.run.serve()

    async def check() -> None:
        if struck_is == "task":  # if that ran the lifespan, later requests opened the store alone
            await place.close()
        await place.check()

    async def struck(operation: Awaitable[object], n: int) -> bool:
        async with place.run.with_a_client():
            with anyio.CancelScope() as scope:
                strike = scope.cancel if struck_is == "server" else cancel_this_task
                watch = EveryTask(n, strike)
                with watch.watching(anyio_backend):
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(awaiting, operation)
        return watch.has_struck

    assert await counted(struck, tally, prepare, check) > 5


async def awaiting(operation: Awaitable[object]) -> None:
    await operation


def cancel_this_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
