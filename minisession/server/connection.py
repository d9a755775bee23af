"""One client's connection: bytes in, bytes out, each within its time.

Owns the socket, what is read and not yet answered, what is to be written, and the two deadlines.
It knows nothing of ASGI and decides nothing about HTTP: `relay.py` says what happens when.

Deadlines are two numbers which the server's sweeper compares with the clock (`expire`), not
cancel scopes: a scope around every wait costs a tenth of a small request, and an expired one
would cancel the app instead of the wait.
"""

from __future__ import annotations

import math
from time import monotonic

import anyio

from .config import ServerConfig
from .errors import ClientDisconnected, RequestRefused
from .forwarded import Client
from .requests import RequestReader
from .sockets import Address
from .transport import Transport

_NOTHING = memoryview(b"")


class Connection:
    """An accepted connection. At any time one task owns it: see `relay.py`.

    Mutable: the reader, `unsent` (the rest of a write that was interrupted, for `flush`), the
    deadlines (monotonic seconds; infinite while nobody waits), `_untaken` (octets in the kernel
    when the time for writing began), `_wait` (the last wait for bytes that began), and the flags:
    `is_gone` (nothing can be written any more), `has_expired` (the client was too slow), `is_idle`
    (between two requests), `is_to_end` (to be closed as soon as it is idle).
    """

    __slots__ = (
        "_config",
        "_read_deadline",
        "_transport",
        "_untaken",
        "_wait",
        "_write_deadline",
        "_writing",
        "client",
        "has_expired",
        "is_gone",
        "is_idle",
        "is_to_end",
        "reader",
        "scheme",
        "server",
        "unsent",
    )

    def __init__(
        self,
        config: ServerConfig,
        transport: Transport,
        client: Client | None,
        server: Address | None,
        scheme: str = "http",
    ) -> None:
        self.client = client
        self.server = server
        self.scheme = scheme
        self.reader = RequestReader(config, scheme)
        self.is_gone = False
        self.has_expired = False
        self.is_idle = self.is_to_end = False
        self._config = config
        self._transport = transport
        self._read_deadline = self._write_deadline = math.inf
        self._wait: object = None
        self._untaken = 0
        self.unsent = _NOTHING
        self._writing: anyio.Lock | None = None  # made when needed: idle connections are many

    def __repr__(self) -> str:
        state = "gone" if self.is_gone else "idle" if self.is_idle else "busy"
        return f"<Connection from {self.client}, {state}>"

    @property
    def idle_until(self) -> float:
        """When an idle connection will have been idle for too long; infinite for others."""
        return self._read_deadline if self.is_idle else math.inf

    def read_nowait(self) -> bool:
        """Give the reader what has come; return whether anything has, be it the end."""
        data = b"" if self.has_expired else self._transport.receive_nowait()
        if data is None:
            return False
        self.reader.feed(data)
        return True

    async def wait_readable(self, deadline: float) -> None:
        """Wait until `read_nowait` has something to give, or the client has been too slow.

        At most one task may wait. (One that was cancelled may leave after the next has come.)

        Raises:
            RequestRefused: 408, the deadline is over; the reader is at its end from now on.
        """
        self._read_deadline = deadline
        wait = self._wait = object()
        try:
            await self._transport.wait_receivable()
        finally:
            if self._wait is wait:
                self._read_deadline = math.inf
        if self.has_expired:
            raise RequestRefused(408, "the client was too slow")

    async def write(self, data: bytes) -> None:
        """Write all of `data`.

        If the wait is cancelled, the rest is kept and goes out before anything else.

        Raises:
            ClientDisconnected: the client is gone, or has taken nothing for `write_timeout`.
        """
        await self.flush()
        if not self.write_nowait(data):
            await self.flush()

    def write_nowait(self, data: bytes | memoryview) -> bool:
        """Write what the kernel takes at once; return whether that was all.

        The rest is for `flush`, and takes the place of what is left of an earlier write.

        Raises:
            ClientDisconnected: the client is gone.
        """
        try:
            sent = self._transport.send_nowait(data)
        except OSError as error:
            self.is_gone = True
            self.unsent = _NOTHING
            raise ClientDisconnected("the client is gone") from error
        self.unsent = _NOTHING if sent == len(data) else memoryview(data)[sent:]
        return not self.unsent

    async def flush(self) -> None:
        """Write what an interrupted write has left.

        Raises:
            ClientDisconnected: as for `write`.
        """
        while self.unsent:
            await self._wait_writable()
            self.write_nowait(self.unsent)

    async def _wait_writable(self) -> None:
        if self._writing is None:
            self._writing = anyio.Lock(fast_acquire=True)
        async with self._writing:
            self._write_deadline = monotonic() + self._config.write_timeout
            self._untaken = self._transport.untaken()
            try:
                await self._transport.wait_sendable()
            finally:
                self._write_deadline = math.inf

    def expire(self, now: float) -> bool:
        """Wake whoever has waited for this client beyond the deadline (monotonic seconds).

        Returns whether there was anybody.
        """
        is_late_to_send = self._read_deadline <= now
        if is_late_to_send:
            self.has_expired = True
            self._transport.stop_receiving()
        if self._write_deadline <= now and not self._has_taken_some(now):
            self._transport.stop()
            return True
        return is_late_to_send

    def _has_taken_some(self, now: float) -> bool:
        """Whether the client took anything within the time for that; if so, it begins anew.

        The kernel calls a socket writable when a third of its buffer is free, which may take a slow
        reader minutes.
        """
        before, self._untaken = self._untaken, self._transport.untaken()
        if self._untaken < before:
            self._write_deadline = now + self._config.write_timeout
            return True
        return False

    def stop_if_idle(self) -> None:
        """End the wait for a next request; one that has come already is still answered."""
        if self.is_idle:
            self.is_to_end = True
            self._transport.wake_receiver()

    async def linger(self, seconds: float) -> None:
        """Send the end of the stream and read on, until the client closes too or time is up.

        The reset that unread bytes provoke would eat the last response (RFC 9112 section 9.6).
        """
        while not self._transport.stop_sending():
            await self._wait_writable()
        deadline = monotonic() + seconds
        while not (self.is_gone or self.reader.is_at_eof):
            try:
                await self.wait_readable(deadline)
            except RequestRefused:
                return
            self.reader.drop_buffer()
            self.read_nowait()

    def close(self) -> None:
        """Give the socket back; what was written is still delivered.

        Only between two requests does the client see a proper end: within a response, where the
        owner was cancelled, TLS must not say that this was all.
        """
        self.is_gone = True
        if self.is_idle:
            self._transport.stop_sending()
        self._transport.close()

    def reset(self) -> None:
        """Close in a way that the client notices as an error."""
        self.is_gone = True
        self._transport.reset()
