"""A shopping list for each client, over TCP, one line at a time.

A client sends its id with every line, as a browser sends its cookie, and "-" while it has none.
The answer begins with the id to use from then on.

    > - add milk
    < 2rXm... milk
    > 2rXm... add bread
    < 2rXm... milk bread
"""

from functools import partial

import anyio
from anyio.abc import Listener, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from minisession import SessionGone, SessionManager, StoreError, session

LONGEST_LINE = 1000  # octets


def carry_out(command: str) -> str:
    """Carry out one command on the session of the client that sent it."""
    match command.split():
        case ["add", thing]:
            session.setdefault("list", []).append(thing)
        case ["login", name]:
            session.regenerate()  # first a new id, then what must not be reached by the old one
            session["user"] = name
        case ["logout"]:
            session.destroy()
        case ["show"]:
            pass
        case _:
            return "? add THING, login NAME, logout or show"
    owner = f"{session['user']}: " if "user" in session else ""
    return owner + (" ".join(session.get("list", ())) or "nothing")


async def answer_lines(sessions: SessionManager, client: SocketStream) -> None:
    """Answer one client until it hangs up or sends what is not a line."""
    lines = BufferedByteReceiveStream(client)
    async with client:
        while True:
            try:
                line = await lines.receive_until(b"\n", LONGEST_LINE)
            except (anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.BrokenResourceError):
                return
            id, _, command = line.decode(errors="replace").partition(" ")
            try:
                async with sessions.open(id) as current:
                    answer = carry_out(command)
                    id = current.id or "-"
            except SessionGone:
                id, answer = "-", "! this session has ended"
            except StoreError:
                answer = "! try again later"
            # Here, after the block, the store has it: what is answered is kept.
            await client.send(f"{id} {answer}\n".encode())


async def serve(listener: Listener[SocketStream]) -> None:
    """Serve until cancelled. Leaving the manager closes the store."""
    async with SessionManager("memory://") as sessions:
        await listener.serve(partial(answer_lines, sessions))


async def main() -> None:
    """Listen where only this machine can connect: a line protocol without TLS has no secrets."""
    await serve(await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=7777))


if __name__ == "__main__":
    anyio.run(main)  # or anyio.run(main, backend="trio")
