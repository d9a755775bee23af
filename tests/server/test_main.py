"""The life of a server: starting, stopping in good order, signals and exit codes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from minisession.server.config import ServerConfig
from minisession.server.errors import LifespanFailed
from minisession.server.main import run, serve
from tests.server.kit import (
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

ROOT = Path(__file__).parent.parent.parent


class Gate:
    """An app whose requests wait until the test lets them go."""

    def __init__(self) -> None:
        self.entered = anyio.Event()
        self.leave = anyio.Event()
        self.cancelled = False
        self.lifespan: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                kind = (await receive())["type"]
                self.lifespan.append(kind)
                await send({"type": f"{kind}.complete"})
            return
        if scope["path"] == "/fast":
            await reply(send, b"fast")
            return
        self.entered.set()
        try:
            await self.leave.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled = True
            raise
        await reply(send, b"done")


@pytest.mark.anyio
async def test_a_server_starts_in_a_task_group_and_reports_its_real_port() -> None:
    async with serving(echo) as (host, port), await connect((host, port)) as client:
        await client.send(get("/x"))

        assert await client.read(len(answer(b"/x "))) == answer(b"/x ")
        assert (host, port) == ("127.0.0.1", port)
        assert port > 0


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("grouped", [False, True])
def test_an_app_can_end_the_process(
    anyio_backend: str, end: type[BaseException], grouped: bool
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise BaseExceptionGroup("several", [end(3), ValueError()]) if grouped else end(3)

    async def visit() -> None:
        async with client_of(app) as client:
            await client.send(get())
            await client.read_all()

    with pytest.raises((end, BaseExceptionGroup)) as found:
        anyio.run(visit, backend=anyio_backend)

    assert isinstance(found.value, end) or found.group_contains(end)
    assert isinstance(found.value, end) or not found.group_contains(ValueError)


@pytest.mark.anyio
async def test_a_stop_finishes_running_requests_and_closes_idle_connections_at_once() -> None:
    app, stop = Gate(), anyio.Event()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            config = ServerConfig(port=0)
            addresses = await tasks.start(_serve_with_stop, app, config, stop)
            async with await connect(addresses[0]) as busy, await connect(addresses[0]) as idle:
                await idle.send(get("/fast"))
                await idle.read(len(answer(b"fast")))
                await busy.send(get("/slow"))
                await app.entered.wait()

                stop.set()

                assert await idle.read_all() == b""
                await until_refused(addresses[0])
                app.leave.set()
                written = await busy.read_all()
                assert b"\r\nconnection: close\r\n" in written
                assert written.endswith(b"done")

    assert app.lifespan == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.anyio
async def test_what_still_runs_after_the_graceful_timeout_is_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, stop = Gate(), anyio.Event()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            config = ServerConfig(port=0, graceful_timeout=0.05)
            addresses = await tasks.start(_serve_with_stop, app, config, stop)
            async with await connect(addresses[0]) as busy:
                await busy.send(get("/slow"))
                await app.entered.wait()
                stop.set()

                assert await busy.read_all() == b""

    assert app.cancelled
    assert "requests were cancelled after 0.05 s" in caplog.text


@pytest.mark.anyio
async def test_a_request_that_is_on_its_way_when_the_server_stops_is_answered() -> None:
    late, stop = Late(), anyio.Event()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            addresses = await tasks.start(_serve_with_stop, late, ServerConfig(port=0), stop)
            async with await connect(addresses[0]) as client:
                await client.send(request("POST", "/", "Content-Length: 4", body=b"ab"))
                await late.has_begun.wait()
                stop.set()
                await until_refused(addresses[0])
                await client.send(b"cd" + get("/never"))

                assert (await client.read_all()).endswith(b"abcd")


async def until_refused(address: tuple[str, int]) -> None:
    """Wait until the server accepts no more connections."""
    while True:
        try:
            client = await connect(address)
        except OSError:
            return
        await client.stream.aclose()


class Late:
    """Echoes; says when it has begun to read."""

    def __init__(self) -> None:
        self.has_begun = anyio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        first = (await receive())["body"]
        self.has_begun.set()
        await reply(send, first + (await read_body(receive) or b""))


@pytest.mark.anyio
async def test_a_cancelled_server_cancels_its_requests_and_shuts_the_app_down() -> None:
    app = Gate()
    async with client_of(app) as client:
        await client.send(get("/slow"))
        await app.entered.wait()

    assert app.cancelled
    assert app.lifespan == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.anyio
async def test_requests_get_a_copy_of_the_state_of_the_lifespan() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["db"] = "open"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        found = dict(scope["state"])
        scope["state"]["mine"] = True
        await reply(send, repr(found).encode())

    async with client_of(app) as client:
        for _ in range(2):
            await client.send(get())
            assert (await client.read_until(b"}")).endswith(b"{'db': 'open'}")


@pytest.mark.anyio
async def test_an_address_in_use_is_an_error_of_its_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = ServerConfig(port=taken.getsockname()[1])

        with pytest.raises(OSError, match=r"(?i)address already in use"):
            await serve(echo, config)


async def _serve_with_stop(app: Any, config: ServerConfig, stop: Any, *, task_status: Any) -> None:
    await serve(app, config, stop=stop, task_status=task_status)


@http_app
async def never_started(scope: Any, receive: Any, send: Any) -> None:
    pytest.fail("no request is made")


def fails_to_start() -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    return app


def test_run_raises_what_keeps_it_from_serving(anyio_backend: Any) -> None:
    with pytest.raises(LifespanFailed, match="no database"):
        run(fails_to_start(), ServerConfig(port=0), anyio_backend)


def test_run_stops_in_good_order_on_a_signal(anyio_backend: Any) -> None:
    started: list[Any] = []

    def on_start(addresses: Any) -> None:
        started.extend(addresses)
        os.kill(os.getpid(), signal.SIGTERM)

    run(never_started, ServerConfig(port=0), anyio_backend, on_start=on_start)

    assert started[0][0] == "127.0.0.1"


def test_run_without_anybody_to_tell_stops_on_a_signal_too(anyio_backend: Any) -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        told.append((await receive())["type"])
        os.kill(os.getpid(), signal.SIGINT)
        await send({"type": "lifespan.startup.complete"})
        told.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})

    run(app, ServerConfig(port=0), anyio_backend)

    assert told == ["lifespan.startup", "lifespan.shutdown"]


class Stopped:
    """An app that is stopped by a signal in its startup or its shutdown, and more often there."""

    def __init__(self, where: str, signals: int) -> None:
        self.where = where
        self.signals = signals

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        for _ in range(2):
            kind = (await receive())["type"]
            if kind == self.where:
                for _ in range(self.signals):
                    os.kill(os.getpid(), signal.SIGINT)
                    await anyio.sleep(0.01)
                await anyio.sleep_forever()
            await send({"type": f"{kind}.complete"})


@pytest.mark.parametrize(("signals", "graceful_timeout"), [(1, 0.1), (2, 60)])
def test_a_signal_and_its_time_or_a_second_one_end_a_startup_that_hangs(
    signals: int, graceful_timeout: float, anyio_backend: Any
) -> None:
    started: list[Any] = []

    app = Stopped("lifespan.startup", signals)
    config = ServerConfig(port=0, graceful_timeout=graceful_timeout)
    run(app, config, anyio_backend, on_start=started.append)

    assert started == []


@pytest.mark.anyio
async def test_a_server_that_is_stopped_in_its_startup_has_no_address() -> None:
    stop = anyio.Event()
    stop.set()
    async with anyio.create_task_group() as tasks:
        addresses = await tasks.start(
            partial(
                serve,
                Stopped("lifespan.startup", 0),
                ServerConfig(port=0, graceful_timeout=0.1),
                stop=stop,
            )
        )

    assert addresses == []


def test_every_further_signal_in_a_shutdown_is_taken(anyio_backend: Any) -> None:
    def on_start(_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    config = ServerConfig(port=0, graceful_timeout=0.1)

    run(Stopped("lifespan.shutdown", 3), config, anyio_backend, on_start=on_start)


SCRIPT = """
import sys
import anyio
from minisession.server import ServerConfig, run

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for _ in range(2):
            kind = (await receive())["type"]
            print(kind, flush=True)
            await send({"type": kind + ".complete"})
        return
    print("request", flush=True)
    await anyio.sleep(float(sys.argv[2]))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})

run(app, ServerConfig(port=0), sys.argv[1], on_start=lambda found: print(found[0][1], flush=True))
"""


@pytest.fixture
def process(anyio_backend: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    command = [sys.executable, "-c", SCRIPT, anyio_backend, str(request.param)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "lifespan.startup\n"
        yield started
        started.kill()


@pytest.mark.parametrize("process", [0.3], indirect=True)
def test_sigterm_lets_a_running_request_finish(process: Any) -> None:
    port = int(process.stdout.readline())
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(get())
        assert process.stdout.readline() == "request\n"

        process.send_signal(signal.SIGTERM)

        assert client.recv(1000).endswith(b"done")
    assert process.wait(5) == 0
    assert process.stdout.read() == "lifespan.shutdown\n"


def can_connect(port: int) -> bool:
    with socket.socket() as probing:
        return probing.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("process", [100], indirect=True)
def test_a_second_signal_cancels_a_running_request(process: Any) -> None:
    port = int(process.stdout.readline())
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(get())
        assert process.stdout.readline() == "request\n"

        process.send_signal(signal.SIGINT)
        while can_connect(port):
            pass
        process.send_signal(signal.SIGINT)

        assert client.recv(1000) == b""
    assert process.wait(5) == 0
