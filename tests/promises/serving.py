"""An application that is served in a process of its own, to be killed or shared.

    python serving.py <asyncio|trio> <database>

It counts in the session, on the bundled server, and prints its port when it accepts requests.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal, cast

from minisession import SessionMiddleware, session
from minisession.server import ServerConfig, run

Message = MutableMapping[str, Any]


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Note the number that the path names, and say how many there are."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    session[scope["path"]] = True
    body = b"%d" % len(session)
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main(backend: str, database: str) -> None:
    """Serve until somebody stops or kills this process."""
    run(
        SessionMiddleware(app, f"sqlite:///{database}"),
        ServerConfig(port=0),
        cast(Literal["asyncio", "trio"], backend),
        on_start=lambda addresses: print(addresses[0][1], flush=True),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
