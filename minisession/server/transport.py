"""The little that a connection needs from its socket. Knows nothing of HTTP.

Raw sockets with anyio's readiness calls rather than anyio's streams: a read or a write that can be
done at once costs one system call and no trip through the event loop, and bytes that an app does
not want yet stay in the kernel, which is the back-pressure.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import sys
import termios

import anyio

RECEIVE_SIZE = 64 * 1024

_NO_LINGER = struct.pack("ii", 1, 0)


class Transport:
    """A connected, non-blocking stream socket; at most one task may wait in each direction.

    A wait that was cancelled does not count, though its task may not have noticed yet.
    """

    __slots__ = ("_socket",)

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def receive_nowait(self) -> bytes | None:
        """Return what has come, None if nothing has, no bytes if nothing ever will.

        A connection that was reset is at its end like one that was closed.
        """
        try:
            return self._socket.recv(RECEIVE_SIZE)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    async def wait_receivable(self) -> None:
        """Wait until `receive_nowait` would return something."""
        with contextlib.suppress(anyio.ClosedResourceError):  # woken without a cause
            await anyio.wait_readable(self._socket)

    def wake_receiver(self) -> None:
        """End a wait to receive, whether anything has come or not; what comes stays readable."""
        anyio.notify_closing(self._socket)

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Hand bytes to the kernel; return how many it took, 0 if it is full.

        Raises:
            OSError: the connection is no more.
        """
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    async def wait_sendable(self) -> None:
        """Wait until the kernel takes bytes again."""
        await anyio.wait_writable(self._socket)

    def untaken(self) -> int:
        """Return how many octets the client has not taken of what the kernel was handed.

        0 where the system does not tell.
        """
        try:
            told = fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):  # a ValueError where the socket is closed
            return 0
        return int.from_bytes(told, sys.byteorder)

    def stop_receiving(self) -> None:
        """Wake whoever waits to receive: from now on the connection is at its end."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def stop_sending(self) -> bool:
        """Send what the kernel holds, then the end of the stream.

        Return whether the kernel has all of it; if not, call again once it takes bytes.
        """
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        return True

    def stop(self) -> None:
        """Wake everybody who waits: nothing can be received or sent any more."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back; the kernel still delivers what it has taken."""
        self._socket.close()

    def reset(self) -> None:
        """Close at once: the client gets an error, and the kernel drops what it holds."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._socket.close()
