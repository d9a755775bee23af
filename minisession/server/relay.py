"""What happens on a connection, and in whose task: the relay.

One task waits for a request and runs the app on it. As soon as the response is over, a *new task*
takes the connection on, started in the context of the server's start. So context variables, and
whatever else is kept per task, never pass from one request to the next; a background task of the
app delays nobody; an idle connection is one task. (Road not taken: a task group around each
request. It costs more, and turns a client's reset into an exception group.)

    turn ──── a request ───> Exchange ─── response over ──┬── persists ──> turn
      └── none ──> close         └── app runs on           └── does not ──> end ──> close
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from time import monotonic

from .connection import Connection
from .cycle import MAX_DISCARD, Cycle, error_response
from .errors import ClientDisconnected, RequestRefused
from .exchange import Exchange
from .requests import Request
from .service import Service, access_logger, logger

# nginx: lingering_timeout 5 s.
LINGER = 2.0


async def turn(service: Service, connection: Connection) -> None:
    """Wait for one request and answer it; close the connection if none comes."""
    try:
        with _owning(service, connection):
            request = await _next_request(service, connection)
    except RequestRefused as refusal:
        await _refuse(service, connection, refusal)
        return
    if request is None:
        service.release(connection)
        return
    await Exchange(service, connection, request, partial(_pass_on, service, connection)).run()


@contextlib.contextmanager
def _owning(service: Service, connection: Connection) -> Iterator[None]:
    """Close the connection if its owner is cancelled."""
    try:
        yield
    except RequestRefused:
        raise
    except BaseException:
        service.release(connection)
        raise


async def _next_request(service: Service, connection: Connection) -> Request | None:
    """Return the next request, None if the client has none.

    The time for a head is counted from its first byte, and is absolute.
    """
    config, reader = service.config, connection.reader
    connection.is_idle = not reader.buffered
    timeout = config.keep_alive_timeout if connection.is_idle else config.head_timeout
    deadline = monotonic() + timeout
    while (request := reader.next_request()) is None:
        if reader.is_at_eof:
            return None
        if connection.is_idle and service.is_stopping:
            return None
        await connection.wait_readable(deadline)
        connection.read_nowait()
        if connection.is_idle and reader.buffered:
            connection.is_idle = False
            deadline = monotonic() + config.head_timeout
    connection.is_idle = False
    return request


async def _refuse(service: Service, connection: Connection, refusal: RequestRefused) -> None:
    """Answer what is no request; a client that sent nothing at all is not answered."""
    if not connection.is_idle:
        logger.info("refused with %d: %s", refusal.status, refusal)
        with _owning(service, connection), contextlib.suppress(ClientDisconnected):
            await connection.write(error_response(refusal.status, service.date()))
    await _end(service, connection)


def _pass_on(service: Service, connection: Connection, cycle: Cycle) -> None:
    """Give the connection to its next task; the response of `cycle` is over and written."""
    if service.config.access_log:
        _log_access(connection, cycle)
    if cycle.is_cut_off:
        connection.reset()
    if connection.is_gone:
        service.release(connection)
    else:
        service.spawn(_go_on if cycle.keeps_alive else _end, service, connection)


async def _go_on(service: Service, connection: Connection) -> None:
    """Drop what the app did not read of its request, then take the next turn."""
    with _owning(service, connection):
        is_reusable = await _drop_body(service, connection)
    if not is_reusable:
        await _end(service, connection)
        return
    connection.reader.start_next()
    await turn(service, connection)


async def _drop_body(service: Service, connection: Connection) -> bool:
    """Read to the end of the request; return whether it came to a good end soon enough."""
    reader, dropped = connection.reader, 0
    try:
        while not reader.is_body_complete and dropped <= MAX_DISCARD:
            part = reader.next_part()
            if part is not None:
                dropped += len(part.data)
                continue
            await connection.wait_readable(monotonic() + service.config.body_timeout)
            connection.read_nowait()
    except RequestRefused:
        return False
    return reader.is_body_complete


async def _end(service: Service, connection: Connection) -> None:
    """Close the connection so that the last response arrives."""
    try:
        with contextlib.suppress(ClientDisconnected):
            await connection.flush()
        await connection.linger(LINGER)
    finally:
        service.release(connection)


def _log_access(connection: Connection, cycle: Cycle) -> None:
    request = cycle.request
    access_logger.info(
        '%s "%s %s HTTP/%s" %d',
        connection.client[0] if connection.client else "-",
        request.method.decode("ascii"),
        request.target.raw_path.decode("ascii"),
        request.http_version,
        cycle.status,
    )
