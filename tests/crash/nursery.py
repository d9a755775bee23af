"""Servers that can be killed by the hundred: each costs a fork, and no start of a Python.

    python nursery.py <asyncio|trio> <module of the store>

Reads orders from stdin, one line of JSON each, and answers each with one line. There is at most
one server at a time; when the orders end, so does the server.

    {"serve": {...}}     starts a server, see `Order`; answers with its port
    {"kill": null}       kills it, if it still lives, waits for its end, answers "killed"
    {"stop": null}       the same in good order; answers "stopped"
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import json
import os
import signal
import stat
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from minisession import SessionMiddleware
from minisession.server import ServerConfig, run
from minisession.stores._files import syncs
from minisession.stores._sqlite import checkpoints, connect
from tests.asgi_client import Receive, Scope, Send
from tests.crash.app import app
from tests.crash.steps import Steps

Backend = Literal["asyncio", "trio"]
Die = Literal["", "fine step", "step", "call", "torn call"]


@dataclass(frozen=True)
class Order:
    """What a server is to be like.

    Attributes:
        store: the URL of its store.
        busy: it makes checkpoints and starts the log anew all the time, as others do in hours.
        synchronous: SQLite's mode instead of our default, or "only files" or "only folders", which
            are all that the store in files syncs then.
        die: a request with the query "n" kills the server at the n-th step from its arrival: a
            step of Python (steps.py), or a call of the system that changes a file or sends
            something (disk.c), before it or in its middle.
    """

    store: str
    busy: bool = False
    synchronous: str = ""
    die: Die = ""


def main(backend: Backend, store: str) -> None:
    """Obey orders until there are no more."""
    for module in (f"anyio._backends._{backend}", store):
        importlib.import_module(module)  # once, for all children
    child = 0
    _say("ready")
    for line in sys.stdin:
        [(order, details)] = json.loads(line).items()
        if order == "serve":
            child = os.fork()
            if child == 0:
                _serve_and_end(Order(**details), backend)
        else:
            _say(_end(child, order))
            child = 0
    if child:
        _end(child, "kill")


def _say(line: str) -> None:
    """Answer in one piece: `print` can write the line and its end apart, and be killed between."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def _end(child: int, order: str) -> str:
    """End a server and say how it ended; one that has died by itself was killed too."""
    os.kill(child, signal.SIGKILL if order == "kill" else signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return {-signal.SIGKILL: "killed", 0: "stopped"}.get(code, f"ended with {code}")


def _serve_and_end(order: Order, backend: Backend) -> None:
    """Serve, and leave the process without what its parent would do at its own end."""
    try:
        serve(order, backend)
    except BaseException:  # this is a fork: nothing may unwind into what its parent was doing
        traceback.print_exc()
        _say("no port, because the server failed; see stderr")
        os._exit(1)
    os._exit(0)


def serve(order: Order, backend: Backend) -> None:
    """Serve until somebody stops or kills this process."""
    if order.busy:
        checkpoints.INTERVAL, checkpoints.WAL_LIMIT = 0.02, 100  # seconds, pages
    if order.synchronous:
        _synchronize(order.synchronous)
    run(
        _mortal(SessionMiddleware(app, order.store), order.die),
        ServerConfig(port=0, keep_alive_timeout=600),
        backend,
        on_start=lambda addresses: _say(str(addresses[0][1])),
    )


def _synchronize(mode: str) -> None:
    """Have the store use another mode than the default."""
    if mode.startswith("only "):
        _sync_only(mode.removeprefix("only "))
        return
    prepare = connect._prepare

    @functools.wraps(prepare)
    def prepare_and_change(connection: Any, path: str) -> None:
        prepare(connection, path)
        connection.execute(f"PRAGMA synchronous = {mode}")

    connect._prepare = prepare_and_change


def _sync_only(kind: str) -> None:
    sync = syncs.Syncs.sync

    def sync_some(self: syncs.Syncs, descriptors: Sequence[int]) -> list[OSError | None]:
        for descriptor in descriptors:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode) == (kind == "folders"):
                sync(self, [descriptor])
        return [None] * len(descriptors)

    syncs.Syncs.sync = sync_some  # type: ignore[method-assign]


def _mortal(served: Any, die: Die) -> Any:
    """Return an app that arms the process when a request says so, and disarms it at the next."""
    if not die:
        return served
    arm = _armer(die)

    async def mortal(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            arm(int(scope["query_string"] or 0))
        await served(scope, receive, send)

    return mortal


def _armer(die: Die) -> Callable[[int], None]:
    if die.endswith("step"):
        return Steps(fine=die == "fine step").die_at
    library = ctypes.CDLL(None)  # disk.c is preloaded
    return lambda n: library.disk_die_at(ctypes.c_long(n), ctypes.c_int(die == "torn call"))


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]  # whoever starts it knows the names
