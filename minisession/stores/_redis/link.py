"""`Link`: one connection to one server, made when it is needed, and again when it was lost.

It owns the connection, the sending of whatever has come together at a tick as one pipeline, and
every wait for the server, all with a limit. It knows no session and no cluster. What is asked is
asked by a task of the store, so whoever gives up waiting takes no answer from anybody.

Mutable state, all of it touched by tasks of one loop between suspensions: `_outbox`, what the next
pipeline will send; `_connection`, usable or not; `_attempt`, while somebody connects; `_doubted`,
by server the number that it gave the last connection on which something was not answered.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute, TaskStatus
from coredis.commands.request import CommandRequest
from coredis.connection import BaseConnection, Location, TCPLocation
from coredis.exceptions import RedisError, ResponseError

from .errors import Lost, NotSent, Unanswered, code_of, unreadable
from .home import Home
from .scripts import SCRIPTS

CONNECT_TIMEOUT = 2.0  # seconds, for the connection, its handshake and the scripts
ANSWER_TIMEOUT = 4.0  # seconds, less than the usual `save_timeout`, so that an error can say more

KEEPALIVE: dict[int, int] = {
    getattr(socket, name): value
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}
"""After 30 silent seconds the system asks whether the other side is still there: what stands
between forgets idle connections, and the next request would wait for nothing."""

logger = logging.getLogger("minisession.stores")

CLOSED = (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream)
"""How a stream, or a buffer of coredis, says that the connection is gone."""

Reply = Any
"""What the server answered, or the exception that stands for it."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command. Its key decides which server it belongs to; empty if that is said otherwise."""

    key: bytes
    words: tuple[bytes, ...]


@dataclass(eq=False, slots=True)
class Pipeline:
    """Commands that are sent together, and their replies."""

    commands: Sequence[Command]
    replies: list[Reply] = field(default_factory=list)
    answered: anyio.Event = field(default_factory=anyio.Event)

    def answer(self, replies: Sequence[Reply]) -> None:
        """Note the replies, and wake who waits for them."""
        self.replies += replies
        self.answered.set()


@dataclass(frozen=True, slots=True)
class Login:
    """How connections are made: the same for all servers of a store."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    tls: ssl.SSLContext | None = None


class Link:
    """Sends pipelines on one connection.

    Args:
        home: where its tasks run.
        login: how the connection is made.
        name: of the server, for messages.
        locate: finds the server, each time anew.
        greeting: what is sent first on a new connection, besides the scripts; raises if the
            answers are not good.
    """

    def __init__(
        self,
        home: Home,
        login: Login,
        name: str,
        locate: Callable[[], Awaitable[TCPLocation]],
        check: Callable[[BaseConnection], Awaitable[None]] | None = None,
        *,
        scripts: bool = True,
    ) -> None:
        self.name = name
        self._home = home
        self._login = login
        self._locate = locate
        self._check = check
        self._scripts = scripts
        self._outbox: list[Pipeline] = []
        self._connection: BaseConnection | None = None
        self._attempt: _Attempt | None = None
        self._doubted: dict[Location, int] = {}
        home.at_the_end(self._give_up)

    async def ask(self, commands: Sequence[Command]) -> list[Reply]:
        """Send commands in order, and return their replies: values or exceptions.

        Who is cancelled while waiting leaves them to the link, which sends them.
        """
        if not commands:
            return []
        if self._home.is_closing:
            return [self._closed()] * len(commands)
        pipeline = Pipeline(commands)
        if not self._outbox:
            self._home.start(self._send)
        self._outbox.append(pipeline)
        await pipeline.answered.wait()
        return pipeline.replies

    def _give_up(self) -> None:
        """Answer who still waits for something that was never sent."""
        self._answer(self._take(), self._closed())

    def _closed(self) -> NotSent:
        return NotSent(f"{self.name}: the store was closed")

    def drop(self) -> None:
        """Give up the connection: the next pipeline looks for the server anew."""
        if self._connection is not None:
            self._connection.invalidate("the server is to be looked for anew")
            self._connection = None

    async def _send(self) -> None:
        """Send what has come together as one pipeline."""
        with ExitStack() as unsent:
            unsent.callback(self._give_up)
            try:
                connection = await self._connected()
            except NotSent as error:
                self._answer(self._take(), error)
                return
            unsent.pop_all()
        pipelines = self._take()
        commands = [command for pipeline in pipelines for command in pipeline.commands]
        replies: Sequence[Reply] = []
        try:
            replies = await self._exchange(connection, commands)
        finally:
            if not replies:
                replies = [Unanswered(f"{self.name}: the store was closed")] * len(commands)
            start = 0
            for pipeline in pipelines:
                pipeline.answer(replies[start : start + len(pipeline.commands)])
                start += len(pipeline.commands)

    def _take(self) -> list[Pipeline]:
        pipelines, self._outbox = self._outbox, []
        return pipelines

    def _answer(self, pipelines: list[Pipeline], error: Exception) -> None:
        for pipeline in pipelines:
            pipeline.answer([error] * len(pipeline.commands))

    async def _exchange(
        self, connection: BaseConnection, commands: Sequence[Command]
    ) -> Sequence[Reply]:
        try:
            batch = connection.create_request_batch(
                [
                    CommandRequest(c.words[0], *c.words[1:], execution_parameters={})
                    for c in commands
                ],
                timeout=ANSWER_TIMEOUT,
            )
        except (RedisError, *CLOSED) as error:  # lost since it was looked at
            if self._home.is_closing:
                return [self._closed()] * len(commands)
            why = str(error) or type(error).__name__
            return [NotSent(f"{self.name}: {why}; nothing was stored")] * len(commands)
        replies = [self._reply(reply) for reply in await batch]
        if connection.client_id and any(isinstance(reply, Unanswered) for reply in replies):
            self._doubted[connection.location] = connection.client_id
        return replies

    def _reply(self, reply: Reply) -> Reply:
        """Tell a server's error from a connection that gave none."""
        if isinstance(reply, TimeoutError):
            return Unanswered(f"{self.name} did not answer within {ANSWER_TIMEOUT:g} s")
        if isinstance(reply, Exception) and not code_of(reply):
            return Lost(f"the connection to {self.name} was lost ({type(reply).__name__})")
        return reply

    # --- the connection ----------------------------------------------------------------------

    async def _connected(self) -> BaseConnection:
        if self._connection is not None and self._connection.usable:
            return self._connection
        attempt = self._attempt
        if attempt is None:
            self._attempt = attempt = _Attempt()
            self._home.start(self._connect, attempt)
        await attempt.over.wait()
        if attempt.connection is None:
            raise NotSent(attempt.failure)
        return attempt.connection

    async def _connect(self, attempt: _Attempt) -> None:
        """Make a connection. How that ends is for all who wait for it."""
        try:
            with anyio.fail_after(CONNECT_TIMEOUT):
                location = await self._locate()
                attempt.connection = self._connection = await self._made(location)
        except TimeoutError:
            attempt.failure = f"{self.name} could not be reached within {CONNECT_TIMEOUT:g} s"
        except NotSent as error:
            attempt.failure = str(error)
        except (RedisError, OSError, *CLOSED) as error:
            attempt.failure = self._why(error)
        except Exception as error:
            logger.exception("connecting to %s failed in a way nobody thought of", self.name)
            attempt.failure = f"{self.name} cannot be reached ({type(error).__name__})"
        finally:
            self._attempt = None
            attempt.over.set()

    async def _made(self, location: TCPLocation) -> BaseConnection:
        connection = _Connection(location, await _connect_tcp(location, self._login), self._login)
        attempt = _Attempt()
        self._home.start(self._run, connection, attempt)
        with ExitStack() as unfit:
            unfit.callback(connection.invalidate, "it was not made in time, or is not fit for use")
            await attempt.succeeded()
            if self._check is not None:
                await self._check(connection)
            if self._scripts:
                await self._end_doubted(connection)
                loads = [connection.create_request(b"SCRIPT LOAD", s.text) for s in SCRIPTS]
                for load in loads:
                    await load
            unfit.pop_all()
        return connection

    async def _end_doubted(self, connection: BaseConnection) -> None:
        """Have the server close the connection before, if something on it was not answered.

        What the network holds up there could otherwise be done after what is sent on this one. A
        server that was started anew counts from 1, and may have given the number to somebody else.
        """
        doubted = self._doubted.get(connection.location)
        if doubted is None:
            return
        if doubted < (connection.client_id or 0):
            with suppress(ResponseError):  # it is closed already, or we may not: see the docs
                await connection.create_request(b"CLIENT KILL", b"ID", b"%d" % doubted)
        del self._doubted[connection.location]

    async def _run(self, connection: BaseConnection, attempt: _Attempt) -> None:
        """Keep a connection until it is lost."""
        status = _Started(attempt)
        try:
            await connection.run(task_status=status)
        except RedisError as error:
            attempt.error = error
        finally:
            attempt.over.set()

    def _why(self, error: Exception) -> str:
        cause = error
        while code_of(cause) == "" and isinstance(cause.__cause__, Exception):
            cause = cause.__cause__
        if code_of(cause):
            return str(unreadable(cause, self.name))
        return f"{self.name} cannot be reached: {str(cause) or type(cause).__name__}"


class _Connection(BaseConnection):
    """A connection of coredis over a stream that is there already.

    It makes its buffers before it connects, and where it cannot, it leaves them open.
    """

    def __init__(self, location: TCPLocation, stream: ByteStream, login: Login) -> None:
        super().__init__(
            location,
            stream_timeout=CONNECT_TIMEOUT,
            username=login.user,
            password=login.password,
            db=login.db,
        )
        self._given = stream

    async def _connect(self) -> ByteStream:
        return self._given

    def describe(self) -> str:
        """Return its name in coredis's log."""
        return f"<connection to {self.location}>"


async def _connect_tcp(location: TCPLocation, login: Login) -> ByteStream:
    if login.tls is None:
        stream: ByteStream = await anyio.connect_tcp(location.host, location.port)
    else:
        stream = await anyio.connect_tcp(
            location.host, location.port, ssl_context=login.tls, tls_standard_compatible=False
        )
    raw = stream.extra(SocketAttribute.raw_socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        raw.setsockopt(socket.IPPROTO_TCP, option, value)
    return stream


@dataclass(eq=False, slots=True)
class _Attempt:
    """What becomes of an attempt to connect."""

    over: anyio.Event = field(default_factory=anyio.Event)
    connection: BaseConnection | None = None
    error: Exception | None = None
    failure: str = ""

    async def succeeded(self) -> None:
        """Wait until it is over; raise what it met."""
        await self.over.wait()
        if self.error is not None:
            raise self.error


class _Started(TaskStatus[None]):
    """Tells an attempt that its connection is ready."""

    def __init__(self, attempt: _Attempt) -> None:
        self._attempt = attempt

    def started(self, value: None = None) -> None:  # noqa: ARG002
        """Note it."""
        self._attempt.over.set()
