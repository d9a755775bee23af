"""`Relay`: passes TCP on to a server, and counts how often a client waits for it.

A round trip is what a client sends after it has heard from the server: commands that are sent
together are one. It understands no protocol, so it counts what the connection itself needs, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import anyio
from anyio.abc import ByteStream, SocketAttribute


class Relay:
    """Counts the round trips of all connections that pass through it."""

    def __init__(self) -> None:
        self.round_trips = 0

    @asynccontextmanager
    async def before(self, url: str) -> AsyncIterator[str]:
        """Stand before the server of a URL; yield the URL that leads through here."""
        parts = urlsplit(url)
        host, port = parts.hostname or "127.0.0.1", parts.port or 6379
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        own = f"127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        user, at, _ = parts.netloc.rpartition("@")

        async def serve(client: ByteStream) -> None:
            async with client, await anyio.connect_tcp(host, port) as server:
                await self._pass_on(client, server)

        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, serve)
            yield urlunsplit(parts._replace(netloc=f"{user}{at}{own}"))
            tasks.cancel_scope.cancel()

    async def _pass_on(self, client: ByteStream, server: ByteStream) -> None:
        is_clients_turn = True

        async def requests() -> None:
            nonlocal is_clients_turn
            async for data in client:
                self.round_trips += is_clients_turn
                is_clients_turn = False
                await server.send(data)
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(requests)
            async for data in server:
                is_clients_turn = True
                await client.send(data)
            tasks.cancel_scope.cancel()
