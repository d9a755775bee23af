"""Clients that go at the worst moment, as a server tells an application of them.

A `BadClient` stands between a good one and the application and counts the calls of `receive` and
`send`; at the n-th the client is gone. Its subclasses differ in how the application learns of it.
"""

from __future__ import annotations

from collections.abc import Awaitable

import anyio
from anyio.lowlevel import checkpoint

from tests.asgi_client import ASGIApp, Message, Receive, Scope, Send


class ClientGone(OSError):
    """What a server raises in `send` when the client has gone (ASGI: "an OSError")."""


class BadClient:
    """An application with a client that goes at the n-th call."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._left = 0
        self.scope = anyio.CancelScope()

    @property
    def is_gone(self) -> bool:
        """Whether it has come to that."""
        return self._left <= 0

    @property
    def is_going(self) -> bool:
        """Whether the client goes in the present call."""
        return self._left == 0

    async def goes(self, operation: Awaitable[object], n: int) -> bool:
        """Let the client go at its n-th call; a blow, to be used in a sweep."""
        self._left = n
        with anyio.CancelScope() as self.scope:
            try:
                await operation
            except* ClientGone:
                pass
        return self.is_gone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def bad_receive() -> Message:
            self._left -= 1
            if not self.is_gone:
                return await receive()
            await checkpoint()
            return await self.receive_nothing({"type": f"{scope['type']}.disconnect"})

        async def bad_send(message: Message) -> None:
            self._left -= 1
            if not self.is_gone:
                await send(message)
                return
            await checkpoint()
            await self.send_to_nobody(send, message)

        await self._app(scope, bad_receive, bad_send)

    async def receive_nothing(self, gone: Message) -> Message:
        """What `receive` does when the client is gone."""
        return gone

    async def send_to_nobody(self, send: Send, message: Message) -> None:
        """What `send` does when the client is gone."""
        raise ClientGone


class LeavesInSilence(BadClient):
    """The server drops what is sent to nobody."""

    async def send_to_nobody(self, send: Send, message: Message) -> None:
        return


class BreaksTheLine(BadClient):
    """Also the `receive` in which it goes fails."""

    async def receive_nothing(self, gone: Message) -> Message:
        if self.is_going:
            raise ClientGone
        return gone


class TakesAndGoes(BadClient):
    """Has got the message in which it goes, although the server thinks otherwise."""

    async def send_to_nobody(self, send: Send, message: Message) -> None:
        if self.is_going:
            await send(message)
        raise ClientGone


class CancelsTheRequest(BadClient):
    """The server cancels the application."""

    async def receive_nothing(self, gone: Message) -> Message:
        self.scope.cancel()
        await checkpoint()
        return gone

    async def send_to_nobody(self, send: Send, message: Message) -> None:
        self.scope.cancel()
        await checkpoint()


BAD_CLIENTS = [BadClient, LeavesInSilence, BreaksTheLine, TakesAndGoes, CancelsTheRequest]
