"""What happens on a connection when its time is up, and when the machine runs out of something."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextvars import copy_context
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from minisession.server import listener, main
from minisession.server.config import ServerConfig
from minisession.server.connection import Connection
from minisession.server.cycle import MAX_DISCARD
from minisession.server.errors import ClientDisconnected
from minisession.server.service import Service
from minisession.server.transport import Transport
from tests.server.kit import (
    Client,
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
from tests.server.memory import MemoryTransport, serve_in_memory

pytestmark = pytest.mark.anyio

SOON = 0.1


async def test_a_client_that_never_sends_a_byte_is_closed_without_a_word() -> None:
    async with client_of(echo, keep_alive_timeout=SOON) as client:
        assert await client.read_all() == b""


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with client_of(echo, keep_alive_timeout=SOON) as client:
        await client.send(get("/x"))

        assert await client.read_all() == answer(b"/x ")


@pytest.mark.parametrize(("sent", "answered"), [(b"", b""), (get("/x"), answer(b"/x "))])
async def test_an_empty_line_is_no_request_that_could_be_late(sent: bytes, answered: bytes) -> None:
    async with client_of(echo, keep_alive_timeout=SOON, head_timeout=SOON) as client:
        await client.send(sent + b"\r\n")

        assert await client.read_all() == answered


async def test_the_time_for_a_head_is_absolute_and_answered_with_408() -> None:
    async with client_of(echo, head_timeout=SOON) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(drip, client)
        written = await client.read_all()
        tasks.cancel_scope.cancel()

    assert written.startswith(b"HTTP/1.1 408 Request Timeout\r\n")


async def drip(client: Any) -> None:
    """Send the head of a request without an end, byte by byte, as long as the server listens."""
    try:
        await client.send(b"GET / HTTP/1.1\r\nX: ")
        while True:
            await client.send(b"x")
            await anyio.sleep(SOON / 20)
    except anyio.BrokenResourceError:
        return


async def test_a_body_that_does_not_come_is_answered_with_408() -> None:
    async with client_of(echo, body_timeout=SOON) as client:
        await client.send(request("POST", "/", "Content-Length: 5", body=b"hell"))

        assert (await client.read_all()).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


async def test_a_body_that_nobody_reads_and_that_does_not_come_ends_the_connection() -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply(send, b"early")

    async with client_of(app, body_timeout=SOON) as client:
        await client.send(request("POST", "/", "Content-Length: 5", body=b"hell"))

        assert await client.read_all() == answer(b"early")


async def test_a_body_that_nobody_reads_and_that_only_trickles_ends_the_connection() -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply(send, b"early")

    async with client_of(app, body_timeout=4 * SOON) as client:
        await client.send(request("POST", "/", "Content-Length: 1000"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(trickle, client)

            assert await client.read_all() == answer(b"early")
            tasks.cancel_scope.cancel()


async def trickle(client: Client) -> None:
    """A byte well within each time-out, until the server hangs up."""
    with contextlib.suppress(anyio.BrokenResourceError):
        while True:
            await client.send(b"x")
            await anyio.sleep(SOON)


async def test_a_task_that_waits_for_the_end_takes_nothing_from_the_next_request() -> None:
    async with anyio.create_task_group() as tasks:

        @http_app
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await read_body(receive)
            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            await reply(send, b"ok")

        async with client_of(app, keep_alive_timeout=3 * SOON) as client:
            for _ in range(3):
                await client.send(get())
                assert await client.read(len(answer(b"ok"))) == answer(b"ok")

            assert await client.read_all() == b""


async def test_an_app_may_take_longer_than_any_time_out_of_the_client() -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        await anyio.sleep(4 * SOON)
        await reply(send, b"slow")

    short = dict.fromkeys(["keep_alive_timeout", "head_timeout", "body_timeout"], SOON)
    async with client_of(app, **short) as client:
        await client.send(get())

        assert await client.read_all() == answer(b"slow")


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"/ HTTP/1.1\r\n\r\n", 400),
        (b"/ HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        (b"/ HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"/ HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"/ HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: gopher\r\n\r\n" + get("/2"), 400),
        (b"/" + b"a" * 20_000, 414),
        (b"/ HTTP/1.1\r\nX: " + b"a" * 70_000, 431),
        (b"/ HTTP/1.1\r\n", 408),
        (b"", 408),
    ],
)
async def test_a_refusal_of_a_head_request_has_no_content(rest: bytes, status: int) -> None:
    async with client_of(echo, head_timeout=SOON, forwarded_allow_ips="*") as client:
        await client.send(b"\r\nHEAD " + rest)
        written = await client.read_all()

    head, _, content = written.partition(b"\r\n\r\n")
    assert written.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\ncontent-length: " in head
    assert b"\r\nconnection: close" in head
    assert content == b""


async def test_a_client_that_stops_in_the_middle_of_a_head_is_closed_without_a_word() -> None:
    async with client_of(echo) as client:
        await client.send(b"GET / HT")
        await client.stream.send_eof()

        assert await client.read_all() == b""


async def test_a_closing_connection_waits_for_the_client_but_not_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("minisession.server.relay.LINGER", SOON)
    async with client_of(echo, keep_alive_timeout=SOON) as client:
        await client.send(get("/x", "Connection: close"))
        assert (await client.read_all()).endswith(b"/x ")

        await drip(client)


async def test_resets_at_any_moment_leave_the_server_alive() -> None:
    async with serving(echo) as address:
        for raw in (b"", b"GET", get(), request("POST", "/", "Content-Length: 9", body=b"x")):
            await anyio.to_thread.run_sync(send_and_reset, address, raw)
        async with await connect(address) as client:
            await client.send(get("/alive"))
            assert await client.read(len(answer(b"/alive "))) == answer(b"/alive ")


def send_and_reset(address: tuple[str, int], raw: bytes) -> None:
    with socket.create_connection(address) as client:
        client.sendall(raw)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


class Exhausted:
    """A listening socket that cannot accept once, as when descriptors run out."""

    def __init__(self, real: socket.socket, error: int) -> None:
        self.real = real
        self.errors = [error]

    def fileno(self) -> int:
        return self.real.fileno()

    def accept(self) -> Any:
        if self.errors:
            raise OSError(self.errors.pop(), "cannot accept")
        return self.real.accept()


@pytest.mark.parametrize(
    "error", [errno.EMFILE, errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EPERM]
)
async def test_a_server_that_cannot_accept_tries_again(
    error: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "ACCEPT_PAUSE", 0.01)
    accept = listener.accept_forever
    monkeypatch.setattr(
        "minisession.server.main.accept_forever",
        lambda service, real: accept(service, Exhausted(real, error)),  # type: ignore[arg-type]
    )

    async with client_of(echo) as client:
        await client.send(get("/x"))
        assert await client.read(len(answer(b"/x "))) == answer(b"/x ")

    assert ("cannot accept connections now" in caplog.text) is (error == errno.EMFILE)


def idle_service() -> Service:
    tasks: Any = None  # nothing is accepted
    return Service(echo, ServerConfig(), tasks, copy_context(), {})


@pytest.mark.parametrize("end", [lambda service: service.make_room(1), main._drain])
async def test_a_request_that_comes_as_its_connection_is_to_end_is_answered_whole(
    end: Callable[[Service], None],
) -> None:
    """The app is not told that its client is gone: it is the server that wants to end."""
    told: list[str] = []

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        with anyio.move_on_after(0.05):
            told.append((await receive())["type"])
        await send({"type": "http.response.body", "body": b"last"})

    async with serving_openly(app) as (service, address):
        with socket.create_connection(address) as client:
            client.sendall(get())
            await anyio.to_thread.run_sync(read_to, client, b"last\r\n0\r\n\r\n")
            await until_idle(service)
            client.sendall(get())  # which the server's loop cannot see before this:
            end(service)

            answered = await anyio.to_thread.run_sync(read_to, client, b"")

    assert b"connection: close" in answered
    assert answered.endswith(b"4\r\nlast\r\n0\r\n\r\n")
    assert told == []


@contextlib.asynccontextmanager
async def serving_openly(app: Any) -> AsyncIterator[tuple[Service, tuple[str, int]]]:
    """A server, and what its connections share."""
    found: list[Service] = []
    sweep = listener.sweep_forever

    async def noted(service: Service) -> None:
        found.append(service)
        await sweep(service)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minisession.server.main.sweep_forever", noted)
        async with anyio.create_task_group() as tasks:
            addresses = await tasks.start(main.serve, app, ServerConfig(port=0))
            await anyio.wait_all_tasks_blocked()
            yield found[0], addresses[0]
            tasks.cancel_scope.cancel()


def read_to(client: socket.socket, end: bytes) -> bytes:
    """Read until these bytes come, or, without any, to the end."""
    received = b""
    while not (end and received.endswith(end)) and (data := client.recv(4096)):
        received += data
    return received


async def until_idle(service: Service) -> None:
    while not all(connection.is_idle for connection in service.connections):  # noqa: ASYNC110
        await anyio.sleep(0.001)


class Due:
    """A connection whose deadline is over, as far as the sweeper sees one."""

    def __init__(self, note: Callable[[], None]) -> None:
        self._note = note

    def expire(self, now: float) -> bool:
        self._note()
        return True


async def test_deadlines_that_fall_together_leave_others_their_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "MAX_INTERVAL", 0.01)
    service, turn, expired_in = idle_service(), 0, list[int]()
    connections: Any = service.connections
    connections.update(Due(lambda: expired_in.append(turn)) for _ in range(100))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.sweep_forever, service)
        while len(expired_in) < 100:
            turn += 1
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()

    assert max(Counter(expired_in[:100]).values()) <= 2 * listener.MAX_EXPIRED


async def test_an_unknown_error_of_a_listener_ends_the_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as real:
        broken: Any = Exhausted(real, errno.EINVAL)
        with (
            socket.create_connection(real.getsockname()),
            pytest.raises(OSError, match="cannot accept"),
        ):
            await listener.accept_forever(idle_service(), broken)


async def test_a_socket_that_is_of_no_use_is_closed() -> None:
    ours = socket.socket(type=socket.SOCK_DGRAM)  # it has none of TCP's options

    listener._start(None, ours, ("", 0))  # type: ignore[arg-type]

    assert ours.fileno() == -1


async def test_a_full_kernel_takes_nothing_and_a_closed_one_refuses() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    transport = Transport(ours)
    with theirs:
        while transport.send_nowait(memoryview(b"x" * 100_000)):
            pass

        assert transport.send_nowait(memoryview(b"x")) == 0
    transport.close()


async def test_a_server_that_is_cancelled_while_it_drops_a_body_closes_the_connection() -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply(send, b"early")

    async with serving(app) as address:
        client = await connect(address)
        await client.send(request("POST", "/", "Content-Length: 5"))
        await client.read(len(answer(b"early")))
        await anyio.wait_all_tasks_blocked()

    assert await client.read_all() == b""
    await client.stream.aclose()


async def test_a_connection_shows_its_state_and_reports_a_client_that_is_gone() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = Connection(ServerConfig(), Transport(ours), ("1.2.3.4", 5), None)
    assert repr(connection) == "<Connection from ('1.2.3.4', 5), busy>"

    connection.is_idle = True
    assert "idle" in repr(connection)
    theirs.close()
    with pytest.raises(ClientDisconnected):
        await connection.write(b"x")

    assert "gone" in repr(connection)
    connection.reset()


async def test_a_full_server_closes_what_is_idle_to_let_others_in() -> None:
    with anyio.fail_after(5):
        async with (
            serving(echo, max_connections=2) as address,
            await connect(address) as oldest,
            await connect(address) as idle,
        ):
            for client in (oldest, idle):
                await client.send(get("/x"))
                await client.read(len(answer(b"/x ")))

            async with await connect(address) as newest:
                await newest.send(get("/new"))
                assert await newest.read(len(answer(b"/new "))) == answer(b"/new ")

            assert await oldest.read_all() == b""
            await idle.send(get("/still"))
            assert await idle.read(len(answer(b"/still "))) == answer(b"/still ")


async def test_who_finds_a_server_full_of_requests_waits_for_one_of_them_to_end() -> None:
    entered, leave = anyio.Event(), anyio.Event()

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            entered.set()
            await leave.wait()
        await reply(send, scope["raw_path"])

    with anyio.fail_after(5):
        async with serving(app, max_connections=1) as address, await connect(address) as busy:
            await busy.send(get("/slow"))
            await entered.wait()
            async with await connect(address) as waiting:
                await waiting.send(get("/waited"))
                await anyio.wait_all_tasks_blocked()
                leave.set()

                assert await busy.read_all() == answer(b"/slow")
                assert await waiting.read(len(answer(b"/waited"))) == answer(b"/waited")


@pytest.mark.parametrize("size", [1 << 20, 8000, 63])
async def test_a_chunked_body_too_long_to_drop_ends_the_connection_however_it_arrives(
    size: int,
) -> None:
    chunk = b"%x\r\n%b\r\n" % (MAX_DISCARD // 2, b"a" * (MAX_DISCARD // 2))
    raw = request(
        "POST", "/", "transfer-encoding: chunked", body=chunk * 2 + b"1\r\na\r\n0\r\n\r\n"
    )
    pieces = [raw[i : i + size] for i in range(0, len(raw), size)]

    written = await serve_in_memory(answers_without_reading, [*pieces, get()])

    assert written == answer(b"")


@http_app
async def answers_without_reading(scope: Any, receive: Any, send: Any) -> None:
    await reply(send, b"")


class StopsReading(MemoryTransport):
    """A client that takes one octet when it is allowed to, then all that comes, then nothing."""

    def __init__(self, may_read: anyio.Event, pieces: Iterable[bytes], send_size: int) -> None:
        super().__init__(pieces, send_size)
        self.may_read = may_read
        self.rooms = [1, 10_000]

    async def wait_sendable(self) -> None:
        await self.may_read.wait()
        if not self.rooms:
            await anyio.sleep_forever()
        self._room = self.rooms.pop(0)


async def test_who_waits_to_say_100_continue_is_released_by_the_end_of_the_response() -> None:
    messages: list[str] = []
    may_read = anyio.Event()

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def listen() -> None:
            messages.append((await receive())["type"])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            may_read.set()
            await reply(send, b"enough")

    raw = request("POST", "/", "Content-Length: 1", "Expect: 100-continue")
    client = partial(StopsReading, may_read)
    written = await serve_in_memory(app, [raw], send_size=1, connect=client)

    assert messages == ["http.disconnect"]
    assert written.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert written.endswith(b"enough")
