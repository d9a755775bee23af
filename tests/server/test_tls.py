"""TLS: who is let in, that a response ends in a way that nobody can forge, and what it may hold."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.streams.tls import TLSAttribute, TLSStream

from minisession.server.config import ServerConfig
from minisession.server.main import serve
from minisession.server.tls import TLSTransport, create_context
from minisession.server.transport import Transport
from tests.certificates import NAME, Certificate
from tests.effort import Tally
from tests.server.kit import (
    Client,
    answer,
    connect,
    echo,
    get,
    http_app,
    read_body,
    reply,
    request,
    serving,
)
from tests.server.test_cancellation import ANSWERS, REQUESTS, Case, read_all
from tests.tripwire import EVERYWHERE, Blow, failed, sweep

pytestmark = pytest.mark.anyio

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)

SOON = 0.1
LAST_DONE = answer(b"done")
MANY = 3_000_000  # octets; more than the kernel keeps for a client that reads nothing


@asynccontextmanager
async def connected(
    address: tuple[str, int], certificate: Certificate, version: ssl.TLSVersion | None = None
) -> AsyncIterator[Client]:
    """An encrypted connection; an end without TLS's good-bye is an error to it."""
    context = certificate.client(version)
    async with await anyio.connect_tcp(*address) as plain:
        yield Client(await TLSStream.wrap(plain, hostname=NAME, ssl_context=context))


@asynccontextmanager
async def client_of(
    certificate: Certificate,
    app: Any = echo,
    version: ssl.TLSVersion | None = None,
    **config: Any,
) -> AsyncIterator[Client]:
    """A server, and one encrypted connection to it; ten seconds must do for any test."""
    with anyio.fail_after(10):
        async with (
            serving(app, **certificate.options, **config) as address,
            connected(address, certificate, version) as client,
        ):
            yield client


@http_app
async def tell_scheme(scope: Any, receive: Any, send: Any) -> None:
    await reply(send, scope["scheme"].encode())


# --- who is let in -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_request_over_tls_is_answered_and_its_scheme_is_https(
    certificate: Certificate, version: ssl.TLSVersion
) -> None:
    async with client_of(certificate, tell_scheme, version) as client:
        await client.send(get())

        assert await client.read(len(answer(b"https"))) == answer(b"https")
        assert client.stream.extra(TLSAttribute.alpn_protocol) == "http/1.1"
        spoken = client.stream.extra(TLSAttribute.tls_version)
        assert spoken == version.name.replace("_", ".")


async def test_an_old_version_of_tls_is_refused(certificate: Certificate) -> None:
    async with serving(echo, **certificate.options) as address:
        with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
            async with connected(address, certificate, ssl.TLSVersion.TLSv1_1):
                pytest.fail("it was let in")


HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # of a ClientHello, the first eleven octets


@pytest.mark.parametrize("sent", [get(), b"\0" * 100, b"\x15\x03\x01\0\x02\x02\x28"])
async def test_who_does_not_speak_tls_is_closed_at_once_and_never_reaches_the_application(
    certificate: Certificate, sent: bytes
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        pytest.fail("that was no request")

    with anyio.fail_after(2):
        async with serving(app, **certificate.options) as address, await connect(address) as client:
            await client.send(sent)

            with contextlib.suppress(anyio.BrokenResourceError):
                assert b"HTTP" not in await client.read_all()


@pytest.mark.parametrize("sent", [b"", HELLO])
async def test_who_never_finishes_the_handshake_is_closed_in_time_and_holds_nothing(
    certificate: Certificate, sent: bytes
) -> None:
    with anyio.fail_after(5):
        config = {"keep_alive_timeout": 5 * SOON, "max_connections": 1, **certificate.options}
        async with serving(tell_scheme, **config) as address:
            async with await connect(address) as client:
                await client.send(sent)

                assert await client.read_all() == b""
            async with connected(address, certificate) as client:
                await client.send(get())

                assert await client.read(len(answer(b"https"))) == answer(b"https")


async def test_the_time_for_the_handshake_is_absolute(certificate: Certificate) -> None:
    async def drip(client: Client) -> None:
        with contextlib.suppress(anyio.BrokenResourceError):
            await client.send(HELLO)
            while True:
                await client.send(b"\0")
                await anyio.sleep(SOON / 20)

    with anyio.fail_after(5):
        config = {"keep_alive_timeout": SOON, **certificate.options}
        async with (
            serving(echo, **config) as address,
            await connect(address) as client,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(drip, client)
            with contextlib.suppress(anyio.BrokenResourceError):
                assert await client.read_all() == b""
            tasks.cancel_scope.cancel()


# --- requests and responses ----------------------------------------------------------------------


async def test_a_connection_is_kept_and_pipelined_requests_are_answered_in_order(
    certificate: Certificate,
) -> None:
    async with client_of(certificate) as client:
        for _ in range(2):
            await client.send(get("/1") + request("POST", "/2", "Content-Length: 2", body=b"hi"))

            expected = answer(b"/1 ") + answer(b"/2 hi")
            assert await client.read(len(expected)) == expected


async def test_a_large_body_goes_up_and_down_to_a_client_that_reads_slowly(
    certificate: Certificate,
) -> None:
    body = bytes(range(256)) * (MANY // 256)
    async with client_of(certificate, max_head=65536) as client:
        head = get("/", f"Content-Length: {len(body)}").replace(b"GET", b"POST")
        await client.send(head, body)
        received = b""
        while len(received) < len(answer(b"/ " + body)):
            received += await client.stream.receive(100_000)
            await anyio.lowlevel.checkpoint()

    assert received == answer(b"/ " + body)


async def test_an_application_that_sends_to_a_client_that_does_not_read_has_to_wait(
    certificate: Certificate,
) -> None:
    sent = 0

    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 50_000, "more_body": True})
            sent += 50_000

    async with client_of(certificate, app, write_timeout=SOON) as client:
        await client.send(get())
        await client.read(1)
        await anyio.sleep(3 * SOON)  # the server gives up
        rest = b""
        with contextlib.suppress(anyio.BrokenResourceError, anyio.EndOfStream):
            while True:
                rest += await client.stream.receive()

    assert 0 < sent <= len(rest)


# --- how a response ends -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent", [get("/x", "Connection: close"), b"GET /x HTTP/1.0\r\n\r\n", b"no request\r\n\r\n"]
)
async def test_the_last_response_of_a_connection_comes_to_a_proper_end(
    certificate: Certificate, sent: bytes
) -> None:
    async with client_of(certificate) as client:
        await client.send(sent)

        assert (await client.read_all()).startswith(b"HTTP/1.1 ")


async def test_an_idle_connection_comes_to_a_proper_end(certificate: Certificate) -> None:
    async with client_of(certificate, keep_alive_timeout=5 * SOON) as client:
        await client.send(get("/x"))

        assert await client.read_all() == answer(b"/x ")


async def test_a_stopping_server_says_good_bye_to_idle_connections(
    certificate: Certificate,
) -> None:
    stop = anyio.Event()
    config = ServerConfig(port=0, **certificate.options)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:

            async def run(*, task_status: Any) -> None:
                await serve(echo, config, stop=stop, task_status=task_status)

            addresses = await tasks.start(run)
            async with connected(addresses[0], certificate) as client:
                await client.send(get("/x"))
                await client.read(len(answer(b"/x ")))
                stop.set()

                assert await client.read_all() == b""


async def test_a_response_that_the_application_breaks_off_has_no_proper_end(
    certificate: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("lost")

    async with client_of(certificate, app) as client:
        await client.send(b"GET /x HTTP/1.0\r\n\r\n")

        with pytest.raises(anyio.BrokenResourceError):
            await client.read_all()


async def test_a_response_that_the_servers_end_cuts_has_no_proper_end(
    certificate: Certificate,
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await anyio.sleep_forever()

    with anyio.fail_after(5):
        async with AsyncExitStack() as stack:
            async with serving(app, **certificate.options) as address:
                client = await stack.enter_async_context(connected(address, certificate))
                await client.send(b"GET /x HTTP/1.0\r\n\r\n")
                await client.read_until(b"half")

            with pytest.raises(anyio.BrokenResourceError):
                await client.read_all()


@pytest.mark.parametrize("with_good_bye", [True, False])
async def test_a_client_that_ends_its_own_half_still_gets_its_response(
    certificate: Certificate, with_good_bye: bool
) -> None:
    @http_app
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await read_body(receive) == b""
        assert (await receive())["type"] == "http.disconnect"
        await reply(send, b"done")

    def converse(address: tuple[str, int]) -> bytes:
        secret = Secret(certificate.client())
        with socket.create_connection(address, 5) as client:
            client.sendall(secret.shake_hands())
            while not secret.is_up:
                client.sendall(secret.shake_hands(client.recv(65536)))
            client.sendall(secret.encrypt(get()) + (secret.good_bye() if with_good_bye else b""))
            client.shutdown(socket.SHUT_WR)
            return secret.decrypt(read_all(client))

    with anyio.fail_after(5):
        async with serving(app, **certificate.options) as address:
            received = await anyio.to_thread.run_sync(converse, address)

    assert received == LAST_DONE


async def test_a_client_that_resets_the_connection_harms_nobody(
    certificate: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(echo, **certificate.options) as address:
        for sent in (b"", HELLO, get()):
            other = socket.create_connection(address)
            other.sendall(sent)
            Transport(other).reset()
        async with connected(address, certificate) as client:
            await client.send(get("/x"))

            assert await client.read(len(answer(b"/x "))) == answer(b"/x ")
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


# --- byte by byte, and struck at every suspension -------------------------------------------------


class Secret:
    """A client's half of TLS without a socket: octets in, octets out."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.inbound, self.outbound = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.inbound, self.outbound, server_hostname=NAME)
        self.is_up = False

    def shake_hands(self, received: bytes = b"") -> bytes:
        self.inbound.write(received)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
            self.is_up = True
        return self.outbound.read()

    def encrypt(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outbound.read()

    def good_bye(self) -> bytes:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self.outbound.read()

    def decrypt(self, received: bytes) -> bytes:
        """What the server sent; it must have been all, if it had an end."""
        self.inbound.write(received)
        data = b""
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while part := self.tls.read(65536):
                data += part
        return data


class TLSCase(Case):
    """A relay over TLS whose client has shaken hands and sent all its requests."""

    def __init__(
        self,
        tasks: Any,
        certificate: Certificate,
        version: ssl.TLSVersion,
        *,
        may_fail: bool = False,
    ) -> None:
        super().__init__(tasks, may_fail=may_fail)
        self.context = create_context(certificate.certfile, certificate.keyfile)
        self.client_context = certificate.client(version)

    def connect(self, transport: Transport) -> Transport:
        self.secret = Secret(self.client_context)
        secured = TLSTransport(transport, self.context)
        self.client.sendall(self.secret.shake_hands())
        while not self.secret.is_up:
            assert secured.receive_nowait() is None
            self.client.sendall(self.secret.shake_hands(self.client.recv(65536)))
        self.client.sendall(self.secret.encrypt(REQUESTS) + self.secret.good_bye())
        return secured

    def received(self) -> bytes:
        return self.secret.decrypt(super().received())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("blow", EVERYWHERE)
async def test_a_connection_that_is_struck_is_closed_and_no_response_is_cut(
    certificate: Certificate, blow: Blow, version: ssl.TLSVersion, tally: Tally
) -> None:
    async with anyio.create_task_group() as tasks:
        case = TLSCase(tasks, certificate, version, may_fail=blow is failed)

        points = await sweep(blow, case.prepare, case.check)

    assert points > 10
    tally("cancellation points", points)


class Stingy(Transport):
    """Receives and sends one octet at a time, and every other time none."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__(connected)
        self.gives = self.takes = False

    def receive_nowait(self) -> bytes | None:
        self.gives = not self.gives
        if not self.gives:
            return None
        try:
            return self._socket.recv(1)
        except BlockingIOError:
            return None

    def send_nowait(self, data: bytes | memoryview) -> int:
        self.takes = not self.takes
        return super().send_nowait(data[:1]) if self.takes else 0


class StingyCase(TLSCase):
    """One whose client and server find every record cut at every octet."""

    def connect(self, transport: Transport) -> Transport:
        self.secret = Secret(self.client_context)
        secured = TLSTransport(Stingy(self.ours), self.context)
        self.client.sendall(self.secret.shake_hands())
        self.client.setblocking(False)
        while not self.secret.is_up:
            assert secured.receive_nowait() is None
            with contextlib.suppress(BlockingIOError):
                self.client.sendall(self.secret.shake_hands(self.client.recv(65536)))
        self.client.sendall(self.secret.encrypt(REQUESTS) + self.secret.good_bye())
        self.client.setblocking(True)
        return secured


@pytest.mark.parametrize("version", VERSIONS)
async def test_records_that_come_and_go_octet_by_octet_are_the_same_records(
    certificate: Certificate, version: ssl.TLSVersion
) -> None:
    async with anyio.create_task_group() as tasks:
        case = StingyCase(tasks, certificate, version)
        tasks.start_soon(awaited, await case.prepare())
        # In a thread, because octets on their own soon fill what the kernel keeps for a reader.
        received = await anyio.to_thread.run_sync(case.received)
        case.client.close()

    assert received == b"".join(ANSWERS)


async def awaited(operation: Awaitable[object]) -> None:
    await operation
