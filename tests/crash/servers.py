"""The tests' side of nursery.py: start servers, ask them, kill them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.command import ROOT
from tests.crash.nursery import Order

NURSERY = Path(__file__).with_name("nursery.py")
LONGEST = 60  # seconds for anything; a fork and the opening of a store take a thousandth


class Nursery:
    """Has one server at a time. Made by `nursery`."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders = process.stdin
        self._answers = BufferedByteReceiveStream(process.stdout)

    async def serve(self, order: Order) -> int:
        """Start a server; return its port."""
        return int(await self._do({"serve": asdict(order)}))

    async def serve_unseen(self, order: Order, doomed_after: float) -> None:
        """Start a server and kill it some seconds later, whatever it is doing then."""
        await self._order({"serve": asdict(order)})
        await anyio.sleep(doomed_after)
        await self._order({"kill": None})
        while await self.answer() != "killed":
            pass  # the port: it was quick

    async def kill(self) -> None:
        """Kill the server, unless it has died already, and wait for its end."""
        assert await self._do({"kill": None}) == "killed"

    async def stop(self) -> None:
        """Stop the server in good order."""
        assert await self._do({"stop": None}) == "stopped"

    async def _do(self, order: dict[str, Any]) -> str:
        await self._order(order)
        return await self.answer()

    async def _order(self, order: dict[str, Any]) -> None:
        await self._orders.send(json.dumps(order).encode() + b"\n")

    async def answer(self) -> str:
        """Wait for the next line."""
        with anyio.fail_after(LONGEST):
            return (await self._answers.receive_until(b"\n", 100)).decode()


@asynccontextmanager
async def nursery(backend: str, module: str, **environment: str) -> AsyncIterator[Nursery]:
    """Keep a nursery for servers of one backend and one store; what is left is killed."""
    command = [sys.executable, str(NURSERY), backend, module]
    env = {**_environment(), **environment}
    async with await anyio.open_process(command, stderr=None, env=env) as process:
        try:
            servers = Nursery(process)
            assert await servers.answer() == "ready"
            yield servers
        finally:
            assert process.stdin is not None
            with anyio.CancelScope(shield=True):
                await process.stdin.aclose()


def _environment() -> Mapping[str, str]:
    """Return ours without coverage, which costs time and is lost with who is killed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return {**kept, "PYTHONPATH": str(ROOT)}
