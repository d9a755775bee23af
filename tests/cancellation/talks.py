"""WebSocket handlers that do what can be done to a session, with the states they go through.

What the client has been told is certain: the answer to the handshake acknowledges what was written
before it, and every message what was written before that.
"""

from __future__ import annotations

from dataclasses import dataclass

from minisession import session
from minisession.errors import StoreError
from tests.asgi_client import Answer, Message, Receive, Scope, Send, converse
from tests.cancellation.operations import n_is
from tests.cancellation.site import Page, Visit
from tests.cancellation.trial import BEFORE

ACCEPT: Message = {"type": "websocket.accept", "headers": []}
TEXTS = ["a", "b"]


class Talk(Page):
    """What happens on one WebSocket: each message from the server tells of one more state.

    `started` is the state that is certain once the handshake is answered.
    """

    def certain(self, answer: Answer) -> int:
        if not answer.started:
            return 0
        told = [each for each in answer.messages if each["type"] == "websocket.send"]
        return self.started + len(told)


async def counts(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
    while (await receive())["type"] == "websocket.receive":
        session["n"] += 1
        await send({"type": "websocket.send", "text": "counted"})


async def logs_in(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    session.regenerate()
    session["n"] = 1
    await send(ACCEPT)
    await receive()


async def is_turned_away(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    session["n"] = 1
    await send({"type": "websocket.close", "code": 1008})


async def says_goodbye(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
    while (await receive())["type"] == "websocket.receive":
        continue
    session["n"] = 1


async def welcomes(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    session["n"] = 1
    await send(ACCEPT)
    await receive()


async def updates(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
    while (await receive())["type"] == "websocket.receive":
        await session.update("n", lambda n: n + 1)
        await send({"type": "websocket.send", "text": "updated"})


TALKS = [
    Talk(counts, n_is(0, 1, 2)),
    Talk(updates, n_is(0, 1, 2)),
    Talk(logs_in, [(BEFORE, None), (None, {**BEFORE, "n": 1})], started=1),
    Talk(is_turned_away, n_is(0, 1), started=1),
    Talk(says_goodbye, n_is(0, 1)),
    Talk(welcomes, [(None, None), (None, {"n": 1})], started=1, is_known=False),
]


@dataclass
class Conversation(Visit):
    """One WebSocket, which may come to a bad end."""

    async def go(self) -> None:
        """Open it, send some texts, and hang up; that the store failed may be raised."""
        try:
            await converse(self.site.way_in, TEXTS, cookie=self.browser.cookie, into=self.answer)
        except StoreError:
            return
