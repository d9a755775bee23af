"""One request and its response: runs the app and gives it `receive` and `send`.

The thin async layer around `cycle.py`: it moves bytes between the cycle and the connection, and
says who is to blame when something goes wrong. It does not know what comes after its response.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from time import monotonic

import anyio
import anyio.lowlevel

from . import on_asyncio
from .access_log import log_access
from .blame import blame, is_disconnect
from .connection import Connection
from .cycle import DISCONNECT, Cycle, State
from .errors import ClientDisconnected, RequestRefused
from .requests import Request
from .scope import Message, http_scope
from .service import Service, logger
from .steps import Steps

# What a client may send ahead while the app runs; more stays in the kernel.
MAX_AHEAD = 64 * 1024

# An app that only sends takes turns with other tasks after so many bytes. A message counts for at
# least as many as another request costs in time.
TURN = 512 * 1024
MESSAGE = 16 * 1024


class Exchange:
    """Runs the app on one request.

    Mutable: the cycle, the scopes of tasks that wait in `receive`, how much was sent without a
    pause, whether the app runs or waits, and whether the exchange is over: from then on the
    connection belongs to somebody else, and nothing here touches it.

    Args:
        hand_over: called if the app goes on after its response, as soon as that is known.
    """

    __slots__ = (
        "_began",
        "_client",
        "_connection",
        "_hand_over",
        "_is_handed_over",
        "_is_over",
        "_is_running",
        "_octets",
        "_receivers",
        "_receiving",
        "_sent",
        "_service",
        "cycle",
    )

    def __init__(
        self,
        service: Service,
        connection: Connection,
        request: Request,
        hand_over: Callable[[Cycle], None],
    ) -> None:
        self.cycle = Cycle(connection.reader, request, service.date)
        self._service = service
        self._connection = connection
        self._hand_over = hand_over
        self._is_over = self._is_handed_over = False
        self._is_running = False
        self._receiving: anyio.Lock | None = None  # made when needed
        self._receivers: set[anyio.CancelScope] = set()
        self._sent = self._octets = 0
        self._client = connection.client
        self._began = monotonic() if service.config.access_log else 0.0

    def __repr__(self) -> str:
        return f"<Exchange {self.cycle!r}>"

    async def run(self) -> None:
        """Run the app to its end; afterwards the response is over, whatever the app did."""
        await Steps(self._run_app(), self._service.context.copy(), self._watch)
        if self._service.is_on_asyncio and on_asyncio.is_cancelling():
            await self._service.recover()
        if not self._is_over:
            await self._conclude()

    def _watch(self, is_running: bool) -> None:
        """Note whether the app runs or waits; one that waits after its response goes on alone."""
        self._is_running = is_running
        if self._is_over and not (is_running or self._is_handed_over):
            self._is_handed_over = True
            self._hand_over(self.cycle)

    async def _run_app(self) -> None:
        connection, service, scheme = self._connection, self._service, self._connection.scheme
        if service.proxies is not None:
            headers = self.cycle.request.headers
            try:
                self._client, scheme = service.proxies.origin(headers, self._client, scheme)
            except RequestRefused as refusal:
                await self._refuse(refusal)
                return
        scope = http_scope(
            self.cycle.request,
            scheme=scheme,
            root_path=service.config.root_path,
            client=self._client,
            server=connection.server,
            state=service.state,
        )
        try:
            await service.app(scope, self.receive, self.send)
        except BaseException as error:
            if not self._is_running:  # nobody runs this coroutine any more: it is being closed
                raise
            self._judge(error)
        else:
            if not (self.cycle.is_over or self._is_client_gone):
                self._log_failure(
                    f"the app returned while the response was: {self.cycle.state.value}"
                )

    def _judge(self, error: BaseException) -> None:
        """Log what the app has raised as its failure, if it is; raise what is an order to us."""
        order, failure = blame(error)
        if failure is not None:
            if self._is_undeliverable and is_disconnect(failure):
                logger.debug("the app has passed on that its client is gone", exc_info=failure)
            else:
                self._log_failure("the app failed", failure)
        if order is not None:
            raise order

    def _log_failure(self, message: str, error: BaseException | None = None) -> None:
        request = self.cycle.request
        method, path = request.method.decode("ascii"), request.target.raw_path.decode("ascii")
        logger.error("%s %s: %s", method, path, message, exc_info=error)

    async def _conclude(self) -> None:
        # Only an exchange that is not over owns the connection's bytes.
        with contextlib.suppress(ClientDisconnected):
            if self.cycle.is_over:
                await self._connection.flush()
            else:
                await self._connection.write(self._refusal(500))
        self._end()

    @property
    def _is_client_gone(self) -> bool:
        return self._connection.is_gone or self._connection.reader.is_at_eof

    @property
    def _is_undeliverable(self) -> bool:
        """Whether `send` has raised, or would: the client is gone, or was answered in our words."""
        return self._connection.is_gone or self.cycle.state in (State.REFUSED, State.BROKEN)

    async def receive(self) -> Message:
        """ASGI's `receive`: the body piece by piece, then `http.disconnect` when the client goes.

        Never raises because of the client. A message that is there is returned without a trip
        through the event loop.
        """
        try:
            while (message := self._receive_nowait()) is None:
                await self._wait()
        except RequestRefused as refusal:
            if not self.cycle.is_over:
                await self._refuse(refusal)
            return {"type": DISCONNECT}
        return message

    def _receive_nowait(self) -> Message | None:
        if self._is_over or self._connection.is_gone:
            return {"type": DISCONNECT}
        while (message := self.cycle.receive_nowait()) is None:
            if self._is_full() or not self._connection.read_nowait():
                return None
        return message

    def _is_full(self) -> bool:
        return not self.cycle.owes_body and self._connection.reader.buffered >= MAX_AHEAD

    async def _wait(self) -> None:
        """Wait until `receive` may have more to say: bytes, or the end of the response."""
        with anyio.CancelScope() as scope:
            self._receivers.add(scope)
            try:
                if self.cycle.wants_continue:
                    with contextlib.suppress(ClientDisconnected):
                        await self._connection.write(self.cycle.send_continue())
                await self._wait_readable()
            finally:
                self._receivers.discard(scope)

    async def _wait_readable(self) -> None:
        if self._is_full():
            await anyio.sleep_forever()
        timeout = self._service.config.body_timeout if self.cycle.owes_body else math.inf
        if self._receiving is None:
            self._receiving = anyio.Lock(fast_acquire=True)
        async with self._receiving:
            await self._connection.wait_readable(monotonic() + timeout)

    async def _refuse(self, refusal: RequestRefused) -> None:
        logger.info("refused with %d: %s", refusal.status, refusal)
        with contextlib.suppress(ClientDisconnected):
            await self._connection.write(self._refusal(refusal.status))
        self._end()

    def _refusal(self, status: int) -> bytes:
        data = self.cycle.refuse(status)
        self._octets += len(data)
        return data

    async def send(self, message: Message) -> None:
        """ASGI's `send`: returns when the kernel has taken the bytes, which is the back-pressure.

        Raises:
            ClientDisconnected: an OSError; the client is gone, or the request was refused.
            AppProtocolError: ASGI does not allow this message now.
        """
        if self._is_over:
            self.cycle.send(message)
            raise ClientDisconnected("the client is gone")
        connection = self._connection
        try:
            if connection.unsent:
                # What a cancelled send has left goes first; the order of bytes is the cycle's.
                await connection.flush()
            data = self._take(message)
            if data and not connection.write_nowait(data):
                self._sent = 0
                await connection.flush()
        except ClientDisconnected:
            self._end()
            raise
        if self.cycle.is_over:
            self._end()
        elif self._sent >= TURN:
            self._sent = 0
            await anyio.lowlevel.checkpoint()

    def _take(self, message: Message) -> bytes:
        if self._service.is_stopping or self._connection.is_to_end:
            self.cycle.close_after()
        data = self.cycle.send(message)
        if data:
            self._octets += len(data)
            self._sent += max(len(data), MESSAGE)
        return data

    def _end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._service.config.access_log:
            self._log_access()
        for scope in tuple(self._receivers):
            scope.cancel()
        if not self._is_running:  # a task of the app has sent the end, while the app itself waits
            self._watch(False)

    def _log_access(self) -> None:
        cycle, seconds = self.cycle, monotonic() - self._began
        log_access(self._client, cycle.request, cycle.status, self._octets, seconds)
