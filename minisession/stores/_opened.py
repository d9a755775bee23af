"""`Opened`: something on this machine in use by one process: who may use it, and how it ends.

It owns the rule about forks and the end of the writer; what is opened, and when, is others'
business. It outlives its store just long enough to store what is queued.
"""

from __future__ import annotations

import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar, TypeVarTuple

import anyio
import anyio.to_thread

from minisession.errors import StoreUnavailable

from ._writer import Writer

CLOSE_TIMEOUT = 10.0
"""Seconds to wait for what is queued when the store closes: twice the longest wait for a lock."""

logger = logging.getLogger("minisession.stores")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Opened(ABC):
    """What a store has opened. Does no I/O until it is used.

    Args:
        name: what it is called in messages, as in "session database /var/lib/app/sessions.db".
        path: where it is.
        writer: takes all changes.
    """

    def __init__(self, name: str, path: str, writer: Writer) -> None:
        self.name = name
        self.path = path
        self.writer = writer
        self._pid: int | None = None
        """The process that has opened it, None while it is closed."""

    def use(self) -> None:
        """Note which process uses it, and refuse any other; call it before everything else.

        A forked child has a copy of a writer without its thread, and of locks that somebody may
        have held at that moment.

        Raises:
            StoreUnavailable: another process opened it and forked this one.
        """
        pid = os.getpid()
        if self._pid is None:
            self._pid = pid
        if self._pid != pid:
            raise StoreUnavailable(
                f"{self.name} was opened by process {self._pid} before it forked"
                f" this one ({pid}). Open the store after the fork: in the ASGI lifespan, or where"
                " the worker starts"
            )

    @abstractmethod
    def open(self) -> None:
        """See that it can be used, and make it if it is missing.

        Raises:
            StoreUnavailable: it cannot be used; says why and what to do.
        """

    async def enter(self) -> None:
        """Open it, in a thread. Raises what `open` does; then nothing is left open."""
        self.use()
        with ExitStack() as unfinished:
            # Refused, cancelled, or Ctrl-C: the thread opens it, even if nobody waits for that.
            unfinished.callback(self.close_soon)
            await self.in_thread(self.open)
            unfinished.pop_all()

    async def leave(self) -> None:
        """Close it, in a thread, and wait for that."""
        with ExitStack() as unfinished:
            # Asyncio's own cancellation passes the shield, and Ctrl-C does so on trio.
            unfinished.callback(self.close_soon)
            try:
                with anyio.CancelScope(shield=True):
                    await self.in_thread(self.close)
            except StoreUnavailable:  # no thread is left to do it
                self.close()
            unfinished.pop_all()

    async def in_thread(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Use it, and call a function that may wait for the disk.

        Raises:
            StoreUnavailable: the function does, the system has no thread left, or another process
                has opened it.
        """
        self.use()
        try:
            return await anyio.to_thread.run_sync(function, *args)
        except RuntimeError as error:
            raise StoreUnavailable(f"{self.name}: {error}") from error

    def close(self) -> None:
        """Store what is queued, then close; a later use opens it again.

        Does nothing in a process that was forked from the one that has opened it: what it inherits,
        it must not touch. Who uses it while it closes opens it again, and must close it again.
        """
        if self._pid not in (None, os.getpid()):
            return
        self.close_rest()
        if self.writer.close(CLOSE_TIMEOUT):
            self._pid = None
        else:
            logger.error("%s: changes still wait for the disk after %s s", self.path, CLOSE_TIMEOUT)

    def close_rest(self) -> None:  # noqa: B027  # there need not be anything
        """Close what is open beside the writer; nothing, unless a store says otherwise."""

    def close_soon(self) -> None:
        """Do what `close` does in a thread that nobody waits for; here, if no thread is left."""
        name = f"closing of {self.path}"
        try:
            threading.Thread(target=self.close, name=name, daemon=True).start()
        except RuntimeError:
            self.close()
