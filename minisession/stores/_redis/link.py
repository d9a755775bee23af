"""`Link`: one connection to one server, made when it is needed, and again when it was lost.

It owns the connection, the sending of whatever has come together at a tick as one pipeline, and
every wait for the server, all with a limit. It knows no session and no cluster. What is asked is
asked by a task of the store, so whoever gives up waiting takes no answer from anybody.

Mutable state, all of it touched by tasks of one loop between suspensions: `_next`, the pipeline
that is still open; `_connection`, usable or not; `_attempt`, while somebody connects; `_doubted`,
by server how it finds the last connection on which something was not answered.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import anyio
from anyio.abc import ByteStream, SocketAttribute, TaskStatus
from coredis.connection import BaseConnection, Location, TCPLocation
from coredis.exceptions import RedisError, ResponseError

from .errors import Lost, NotSent, Unanswered, code_of, unreadable
from .home import Home
from .scripts import SCRIPTS

if TYPE_CHECKING:
    from coredis.commands.request import CommandRequest

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

IDENTITY = re.compile(rb"\bid=(\d+) addr=(\S+)")
"""In an answer to `CLIENT INFO`: a connection's number, and its other end as the server sees it."""

CLOSED = (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream)
"""How a stream, or a buffer of coredis, says that the connection is gone."""

Reply = Any
"""What the server answered, or the exception that stands for it."""


class Command(NamedTuple):
    """One command. Its key decides which server it belongs to; empty if that is said otherwise."""

    key: bytes
    words: tuple[bytes, ...]

    # What coredis asks of a command. One of its own kind looks at the type of every word.

    @property
    def name(self) -> bytes:
        """The first word."""
        return self.words[0]

    @property
    def serialized_arguments(self) -> tuple[bytes, ...]:
        """The other words."""
        return self.words[1:]

    @property
    def decode(self) -> bool:
        """Whether replies are to be text."""
        return False


@dataclass(eq=False, slots=True)
class Pipeline:
    """Commands that are sent together, and their replies, for all who have asked meanwhile."""

    commands: list[Command] = field(default_factory=list)
    replies: Sequence[Reply] = ()
    answered: anyio.Event = field(default_factory=anyio.Event)

    def answer(self, replies: Sequence[Reply]) -> None:
        """Note the replies, and wake who waits for them."""
        self.replies = replies
        self.answered.set()

    def refuse(self, error: Exception) -> None:
        """Answer every command with the same error."""
        self.answer([error] * len(self.commands))


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
        self._next: Pipeline | None = None
        self._connection: _Connection | None = None
        self._attempt: _Attempt | None = None
        self._doubted: dict[Location, tuple[bytes, ...]] = {}
        home.at_the_end(self._give_up)

    async def ask(self, commands: Sequence[Command]) -> Sequence[Reply]:
        """Send commands in order, and return their replies: values or exceptions.

        Who is cancelled while waiting leaves them to the link, which sends them.
        """
        if not commands:
            return []
        if self._home.is_closing:
            return [self._closed()] * len(commands)
        pipeline = self._open_pipeline()
        start = len(pipeline.commands)
        pipeline.commands += commands
        await pipeline.answered.wait()
        return pipeline.replies[start : start + len(commands)]

    def _open_pipeline(self) -> Pipeline:
        """Return the pipeline that takes what is asked now. It leaves at the next tick."""
        if self._next is None:
            self._next = Pipeline()
            self._home.start(self._send, self._next)
        return self._next

    def _give_up(self) -> None:
        """Answer who still waits for something that was never sent."""
        if self._next is not None:
            self._next.refuse(self._closed())
            self._next = None

    def _closed(self) -> NotSent:
        return NotSent(f"{self.name}: the store was closed")

    def drop(self) -> None:
        """Give up the connection: the next pipeline looks for the server anew."""
        if self._connection is not None:
            self._connection.invalidate("the server is to be looked for anew")
            self._connection = None

    async def _send(self, pipeline: Pipeline) -> None:
        """Send what has come together by the time that there is a connection."""
        closed: Exception = self._closed()
        try:
            try:
                connection = await self._connected()
            finally:
                self._next = None  # what is asked from now on goes with another one
            closed = Unanswered(str(closed))
            pipeline.answer(await self._exchange(connection, pipeline.commands))
        except NotSent as error:
            pipeline.refuse(error)
        finally:
            if not pipeline.replies:
                pipeline.refuse(closed)

    async def _exchange(
        self, connection: _Connection, commands: Sequence[Command]
    ) -> Sequence[Reply]:
        try:
            batch = connection.create_request_batch(
                cast("Sequence[CommandRequest[Any]]", commands), timeout=ANSWER_TIMEOUT
            )
        except (RedisError, *CLOSED) as error:  # lost since it was looked at
            if self._home.is_closing:
                return [self._closed()] * len(commands)
            why = str(error) or type(error).__name__
            return [NotSent(f"{self.name}: {why}; nothing was stored")] * len(commands)
        replies = [
            self._error(reply) if isinstance(reply, Exception) else reply for reply in await batch
        ]
        if connection.filters and any(isinstance(reply, Unanswered) for reply in replies):
            self._doubted[connection.location] = connection.filters
        return replies

    def _error(self, error: Exception) -> Exception:
        """Tell a server's error from a connection that gave none."""
        if isinstance(error, TimeoutError):
            return Unanswered(f"{self.name} did not answer within {ANSWER_TIMEOUT:g} s")
        if not code_of(error):
            return Lost(f"the connection to {self.name} was lost ({type(error).__name__})")
        return error

    # --- the connection ----------------------------------------------------------------------

    async def _connected(self) -> _Connection:
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

    async def _made(self, location: TCPLocation) -> _Connection:
        connection = _Connection(location, await _connect_tcp(location, self._login), self._login)
        attempt = _Attempt()
        self._home.start(self._run, connection, attempt)
        with ExitStack() as unfit:
            unfit.callback(connection.invalidate, "it was not made in time, or is not fit for use")
            await attempt.succeeded()
            if self._check is not None:
                await self._check(connection)
            if self._scripts:
                connection.filters = await _filters_of(connection)
                await self._end_doubted(connection)
                loads = [connection.create_request(b"SCRIPT LOAD", s.text) for s in SCRIPTS]
                for load in loads:
                    await load
            unfit.pop_all()
        return connection

    async def _end_doubted(self, connection: BaseConnection) -> None:
        """Have the server close the connection before, if something on it was not answered.

        What the network holds up there could otherwise be done after what is sent on this one.
        """
        doubted = self._doubted.get(connection.location)
        if doubted is None:
            return
        with suppress(ResponseError):  # we may not: see the docs
            await connection.create_request(b"CLIENT KILL", *doubted)
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
        self.filters: tuple[bytes, ...] = ()
        """How `CLIENT KILL` finds it, empty if the server does not tell."""

    async def _connect(self) -> ByteStream:
        return self._given

    def describe(self) -> str:
        """Return its name in coredis's log."""
        return f"<connection to {self.location}>"


async def _filters_of(connection: BaseConnection) -> tuple[bytes, ...]:
    """Return how `CLIENT KILL` finds this connection, and never another one.

    Its number alone is not enough: a server that was started anew counts from 1 again.
    """
    try:
        told = await connection.create_request(b"CLIENT INFO")
    except ResponseError:  # we may not ask
        return ()
    found = IDENTITY.search(told) if isinstance(told, bytes) else None
    return () if found is None else (b"ID", found[1], b"ADDR", found[2])


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
    connection: _Connection | None = None
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
