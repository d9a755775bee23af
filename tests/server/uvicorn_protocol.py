"""uvicorn's h11 protocol on a transport in memory, as a second opinion on what bytes mean."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from minisession.server.scope import ASGIApp

# Turns of the event loop in which nothing is written: then uvicorn waits for its client.
QUIET = 8


class MemoryTransport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self._is_closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    def pause_reading(self) -> None:
        """Nothing more comes while this matters."""

    def resume_reading(self) -> None:
        """Nothing has been held back."""


class Uvicorn:
    """A uvicorn without sockets that serves one connection after the other."""

    def __init__(self, app: ASGIApp) -> None:
        self._config = Config(app, http="h11", ws="none", lifespan="off", log_config=None)
        self._config.load()

    async def serve(self, pieces: Iterable[bytes]) -> bytes:
        """Serve a connection on which these pieces come, then the end; return what was written."""
        state, transport = ServerState(), MemoryTransport()
        protocol = H11Protocol(self._config, state, {})
        protocol.connection_made(transport)
        for piece in filter(None, pieces):  # to h11, no bytes are the end
            if transport.is_closing():
                break
            protocol.data_received(piece)
            await _until_quiet(transport)
        protocol.connection_lost(None)
        await asyncio.gather(*state.tasks)
        return bytes(transport.written)


async def _until_quiet(transport: MemoryTransport) -> None:
    quiet = 0
    while quiet < QUIET:
        before = len(transport.written)
        await asyncio.sleep(0)
        quiet = 0 if len(transport.written) > before else quiet + 1
