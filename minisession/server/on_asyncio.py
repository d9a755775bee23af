"""What the server does differently on asyncio, where it is cheaper or safer.  # backend shim

Owns a transport that stays registered with the event loop, and the clean-up after applications
that cancel their own task. Everything else runs through anyio alike on both backends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

import anyio

from .transport import Transport


def is_running() -> bool:
    """Whether the calling task runs on asyncio."""
    return anyio.get_cancelled_exc_class() is asyncio.CancelledError


class LoopTransport(Transport):
    """A transport whose socket stays registered with the event loop from one wait to the next.

    anyio registers a socket for each wait and removes it afterwards, which costs two system calls
    and more time than all the rest of a wait.

    Mutable: `_received` (read and not fetched yet), `_waiter` (who waits to receive), and
    `_is_watched`. Bytes are only read while somebody waits for them; when they come without that,
    the registration ends, and they stay in the kernel.
    """

    __slots__ = ("_is_watched", "_loop", "_received", "_waiter")

    def __init__(self, connected: socket.socket) -> None:
        super().__init__(connected)
        self._loop = asyncio.get_running_loop()
        self._received: bytes | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_watched = False

    def receive_nowait(self) -> bytes | None:
        """Return what has come, None if nothing has, no bytes if nothing ever will."""
        if self._received is None:
            return super().receive_nowait()
        received, self._received = self._received, None
        return received

    async def wait_receivable(self) -> None:
        """Wait until `receive_nowait` would return something."""
        if self._received is not None:  # read for a wait that was cancelled in the same moment
            await anyio.lowlevel.checkpoint()
            return
        if not self._is_watched:
            self._loop.add_reader(self._socket, self._receive)
            self._is_watched = True
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            if self._waiter is waiter:  # who was cancelled may leave after the next has come
                self._waiter = None

    def wake_receiver(self) -> None:
        """End a wait to receive, whether anything has come or not; what comes stays readable."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _receive(self) -> None:
        """Read for whoever waits. (Only waking it would have the loop report the bytes again.)"""
        waiter = self._waiter
        if waiter is None or waiter.done():
            self._unwatch()
            return
        self._received = super().receive_nowait()
        if self._received is not None:
            waiter.set_result(None)

    def _unwatch(self) -> None:
        if self._is_watched:
            self._is_watched = False
            self._loop.remove_reader(self._socket)

    def close(self) -> None:
        """Give the socket back; the kernel still delivers what it has taken."""
        self._unwatch()
        super().close()

    def reset(self) -> None:
        """Close at once: the client gets an error, and the kernel drops what it holds."""
        self._unwatch()
        super().reset()


def is_cancelling() -> bool:
    """Whether somebody called `cancel()` on this task and has not taken it back."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def absorb_cancellation() -> None:
    """Undo what an app has left: calls of `cancel()` on the task that it was given for a while."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)  # here a call that is still to be delivered comes out
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
