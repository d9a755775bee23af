"""Accepting connections: binds, accepts, and sees that deadlines are kept.

Owns the listening sockets. What happens on a connection is `relay.py`'s business, when a server
starts and stops `main.py`'s.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.stapled import MultiListener

from .config import ServerConfig
from .connection import Connection
from .on_asyncio import LoopTransport
from .relay import Relay
from .scope import Address
from .service import Service, logger
from .transport import Transport

# Without descriptors or memory accept() fails again at once: wait instead of spinning.
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
ACCEPT_PAUSE = 0.25

# Connections accepted in one go before other tasks get their turn.
_BATCH = 32

# Deadlines are looked at this often, in seconds, or four times per shortest time-out.
MAX_INTERVAL = 0.5


class Listeners:
    """The listening sockets of a server, open until `aclose` or the end of `bind`."""

    def __init__(self, owner: MultiListener[SocketStream]) -> None:
        self.sockets: list[socket.socket] = [
            each.extra(SocketAttribute.raw_socket) for each in owner.listeners
        ]
        self.aclose = owner.aclose

    @property
    def addresses(self) -> list[Address]:
        """Host and port of each."""
        return [address_of(each) for each in self.sockets]


@asynccontextmanager
async def bind(config: ServerConfig) -> AsyncIterator[Listeners]:
    """Bind and listen on every address of `config.host`; close the sockets in the end.

    Raises:
        OSError: the host cannot be resolved, or an address cannot be bound.
    """
    owner = await anyio.create_tcp_listener(
        local_host=config.host, local_port=config.port, backlog=config.backlog
    )
    async with owner:
        yield Listeners(owner)


def address_of(bound: socket.socket) -> Address:
    """Return host and port of a socket, without what IPv6 adds to them."""
    host, port = bound.getsockname()[:2]
    return host, port


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
        except ConnectionError:
            continue  # the client was gone before we came
        _start(service, accepted, peer)


def _start(service: Service, accepted: socket.socket, peer: tuple[str, int]) -> None:
    try:
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = address_of(accepted)
    except OSError:
        accepted.close()
        return
    transport = LoopTransport(accepted) if service.is_on_asyncio else Transport(accepted)
    connection = Connection(service.config, transport, (peer[0], peer[1]), server)
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
        now = monotonic()
        for connection in list(service.connections):
            connection.expire(now)
