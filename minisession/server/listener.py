"""Accepting connections, and seeing that their deadlines are kept.

What a connection is made of is decided here. What happens on it is `relay.py`'s business, when a
server starts and stops `main.py`'s.
"""

from __future__ import annotations

import errno
import socket
from time import monotonic

import anyio
import anyio.lowlevel

from .connection import Connection
from .on_asyncio import LoopTransport
from .relay import Relay
from .service import Service, logger
from .sockets import address_of
from .tls import TLSTransport
from .transport import Transport

# Without descriptors or memory accept() fails again at once: wait instead of spinning.
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
ACCEPT_PAUSE = 0.25

# What is wrong with one connection that waits, or its network, and not with the listener: accept(2)
# asks to treat them like EAGAIN. (EPERM: a firewall forbids it.)
_OF_ONE_CLIENT = {
    errno.EPERM,
    errno.EPROTO,
    errno.ENOPROTOOPT,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ETIMEDOUT,
    errno.ECONNABORTED,
    errno.ECONNRESET,
}

# Connections accepted in one go before other tasks get their turn.
_BATCH = 32

# Deadlines are looked at this often, in seconds, or four times per shortest time-out.
MAX_INTERVAL = 0.5

# Connections whose deadline is over, in one go: each is answered and closed before others get
# their turn, and an attacker chooses how many there are.
MAX_EXPIRED = 8


async def accept_forever(service: Service, listener: socket.socket) -> None:
    """Accept connections and start them, until cancelled.

    While there are `max_connections`, new ones wait in the kernel, and idle ones make room.
    """
    is_exhausted = False
    while True:
        await anyio.wait_readable(listener)
        await service.wait_for_room()
        try:
            _accept_waiting(service, listener)
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            if not is_exhausted:  # said once, not four times a second
                logger.error("cannot accept connections now: %s", error.strerror)
            is_exhausted = True
            service.make_room(_BATCH)
            await anyio.sleep(ACCEPT_PAUSE)
        else:
            is_exhausted = False


def _accept_waiting(service: Service, listener: socket.socket) -> None:
    for _ in range(_BATCH):
        if service.is_full:
            return
        try:
            accepted, peer = listener.accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if error.errno not in _OF_ONE_CLIENT:
                raise
            continue  # the client was gone before we came
        _start(service, accepted, peer)


def _start(service: Service, accepted: socket.socket, peer: tuple[str, int] | str) -> None:
    is_local = accepted.family == socket.AF_UNIX
    try:
        accepted.setblocking(False)
        if not is_local:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = address_of(accepted)
    except OSError:
        accepted.close()
        return
    transport = LoopTransport(accepted) if service.is_on_asyncio else Transport(accepted)
    if service.tls is not None:
        transport = TLSTransport(transport, service.tls)
    client = None if is_local else (str(peer[0]), int(peer[1]))
    scheme = "http" if service.tls is None else "https"
    connection = Connection(service.config, transport, client, server, scheme)
    service.connections.add(connection)
    service.spawn(Relay(service, connection).run)


async def sweep_forever(service: Service) -> None:
    """Enforce the deadlines of all connections, until cancelled."""
    config = service.config
    shortest = min(
        config.keep_alive_timeout, config.head_timeout, config.body_timeout, config.write_timeout
    )
    interval = min(shortest / 4, MAX_INTERVAL)
    while True:
        await anyio.sleep(interval)
        now, expired = monotonic(), 0
        for connection in list(service.connections):
            expired += connection.expire(now)
            if expired == MAX_EXPIRED:
                expired = 0
                await anyio.lowlevel.checkpoint()
