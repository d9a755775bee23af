"""A program that somebody interrupts by Ctrl-C while it saves.

    python interrupted.py <asyncio|trio> <database>

Nobody runs the manager, and nobody catches the interrupt: what was handed over is stored by the
end of the interpreter. It prints the id of its session.
"""

from __future__ import annotations

import signal
import sys
from functools import partial

import anyio

from minisession import SessionManager
from minisession._loop import current_loop


async def main(database: str) -> None:
    """Write, wait for that once, write again, and be interrupted."""
    sessions = SessionManager(f"sqlite:///{database}")
    async with sessions.open() as session:
        session["acknowledged"] = True
        await session.save()
        print(session.id, flush=True)
        session["handed over"] = True
        current_loop()(partial(signal.raise_signal, signal.SIGINT))
        await session.save()


if __name__ == "__main__":
    anyio.run(main, sys.argv[2], backend=sys.argv[1])
