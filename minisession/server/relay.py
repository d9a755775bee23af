"""What happens on a connection, and in whose task: the relay.

One task answers the requests of a connection, one after the other, each in a context of its own.
An app that goes on after its response (a background task, say) keeps the task that it is in, and
the connection gets a new one: so nobody waits for that app, and an idle connection is one task.
(Roads not taken: a task per request, which costs a tenth of a small request; a task group around
each request, which costs more, and turns a client's reset into an exception group.)

    a request ──> Exchange ──> response over ──> it persists ──> a request ──> ...
      └── none ──> close          │                └── it does not ──> end ──> close
                                  └── the app goes on: the same in a new task
"""

from __future__ import annotations

import contextlib
from time import monotonic

import anyio
import anyio.lowlevel

from .blame import is_cancelled
from .connection import Connection
from .cycle import MAX_DISCARD, Cycle, error_response
from .errors import ClientDisconnected, RequestRefused
from .exchange import Exchange
from .requests import Request
from .service import Service, logger

# nginx: lingering_timeout 5 s.
LINGER = 2.0


class Relay:
    """One task's hold on a connection. Mutable: `_owns`, which ends when the next task takes over.

    Whoever owns a connection closes it, also when it is cancelled.
    """

    __slots__ = ("_connection", "_owns", "_service")

    def __init__(self, service: Service, connection: Connection) -> None:
        self._service = service
        self._connection = connection
        self._owns = True

    async def run(self, finished: Cycle | None = None) -> None:
        """Answer requests until the connection ends or another task has taken over.

        Args:
            finished: what an earlier task has answered last.
        """
        try:
            await self._answer_requests(finished)
        except RequestRefused as refusal:
            await self._refuse(refusal)
        except anyio.get_cancelled_exc_class():
            if is_cancelled():
                raise
            logger.error("a connection was lost: an app cancelled a task that was not its own")
            await self._service.recover()
        finally:
            if self._owns:
                self._service.release(self._connection)

    async def _answer_requests(self, finished: Cycle | None) -> None:
        while finished is None or await self._make_ready_after(finished):
            request = await self._next_request()
            if request is None:
                return
            exchange = Exchange(self._service, self._connection, request, self._hand_over)
            await exchange.run()
            if not self._owns:
                return
            finished = exchange.cycle

    def _hand_over(self, finished: Cycle) -> None:
        """Give the connection to a new task, because the app keeps this one."""
        self._owns = False
        self._service.spawn(Relay(self._service, self._connection).run, finished)

    async def _next_request(self) -> Request | None:
        """Return the next request, None if the client has none.

        The time for a head is counted from its first byte, and is absolute.
        """
        service, connection, reader = self._service, self._connection, self._connection.reader
        if reader.buffered and (request := reader.next_request()) is not None:
            await anyio.lowlevel.checkpoint()  # who sends many at once takes turns with others
            return request
        connection.is_idle = not reader.buffered  # an empty line does not begin a request
        config = service.config
        timeout = config.keep_alive_timeout if connection.is_idle else config.head_timeout
        deadline = monotonic() + timeout
        while True:
            is_wanted = service.wants_idle and not connection.is_to_end
            if reader.is_at_eof or (connection.is_idle and not is_wanted):
                return None
            await connection.wait_readable(deadline)
            connection.read_nowait()
            if connection.is_idle and reader.buffered:
                connection.is_idle = False
                deadline = monotonic() + config.head_timeout
            if (request := reader.next_request()) is not None:
                return request
            connection.is_idle = not reader.buffered

    async def _refuse(self, refusal: RequestRefused) -> None:
        """Answer what is no request; a client that sent nothing at all is not answered."""
        connection = self._connection
        if not connection.is_idle:
            logger.info("refused with %d: %s", refusal.status, refusal)
            has_body = not connection.reader.is_at_head_request
            data = error_response(refusal.status, self._service.date(), has_body=has_body)
            with contextlib.suppress(ClientDisconnected):
                await connection.write(data)
        await self._end()

    async def _make_ready_after(self, finished: Cycle) -> bool:
        """Return whether another request can follow; else see to it that the response arrives."""
        connection = self._connection
        if finished.is_cut_off:
            connection.reset()
        if connection.is_gone:
            return False
        is_complete = connection.reader.is_body_complete
        if finished.keeps_alive and (is_complete or await self._drop_body()):
            return True
        await self._end()
        return False

    async def _drop_body(self) -> bool:
        """Read to the end of the request; return whether it came to a good end soon enough.

        The time is absolute: whoever sends a byte now and then holds no connection by that.
        """
        connection, reader, dropped = self._connection, self._connection.reader, 0
        deadline = monotonic() + self._service.config.body_timeout
        try:
            while not reader.is_body_complete and dropped <= MAX_DISCARD:
                part = reader.next_part()
                if part is not None:
                    dropped += len(part.data)
                    continue
                await connection.wait_readable(deadline)
                connection.read_nowait()
        except RequestRefused:
            return False
        return reader.is_body_complete and dropped <= MAX_DISCARD

    async def _end(self) -> None:
        """Send what there is, and wait for the client to have read it."""
        with contextlib.suppress(ClientDisconnected):
            await self._connection.flush()
        await self._connection.linger(LINGER)
