"""What does a session cost a request: one read and one write, in memory and in SQLite?

    python benchmarks/sessions.py [--rounds 3] [--seconds 4] [--json FILE]

The same app without sessions, with one that it does not touch, and with one that it reads and
writes, on the bundled server and on uvicorn. 256 browsers take turns on 64 connections; every
write is stored, in SQLite with a sync of the disk, before its answer leaves.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from _http import compare, table
from server import app as plain

from minisession import SessionMiddleware, session

BROWSERS = 256
BASELINE = "minisession asyncio, none"
KINDS = ("none", "untouched", "memory", "sqlite")


async def counting(scope: Any, receive: Any, send: Any) -> None:
    """One read and one write."""
    if scope["type"] == "http":
        session["visits"] = session.get("visits", 0) + 1
    await plain(scope, receive, send)


async def with_any_cookie(scope: Any, receive: Any, send: Any) -> None:
    """Without sessions, but with a cookie, so that all requests are alike."""

    async def send_cookie(message: Any) -> None:
        if message["type"] == "http.response.start" and not has_cookie:
            message["headers"].append((b"set-cookie", b"MINISESSID=" + b"x" * 55))
        await send(message)

    has_cookie = any(name == b"cookie" for name, _ in scope.get("headers", ()))
    await plain(scope, receive, send_cookie if scope["type"] == "http" else send)


def make_app() -> Any:
    """The app that the environment names; a server imports it as `sessions:app`."""
    kind = os.environ.get("BENCH_SESSIONS", "none")
    if kind == "none":
        return with_any_cookie
    if kind == "untouched":
        return SessionMiddleware(with_any_cookie, store="memory://")
    if kind == "memory":
        return SessionMiddleware(counting, store="memory://")
    folder = tempfile.mkdtemp(prefix="minisession-bench-")
    return SessionMiddleware(counting, store=f"sqlite:///{folder}/sessions.db")


app = make_app()


def commands(port: int) -> dict[str, list[str]]:
    """Each server with each kind of session."""
    uvicorn = ["uvicorn", "--http", "h11", "--loop", "asyncio", "--no-access-log"]
    uvicorn += ["--log-level", "error", "--port", str(port), "sessions:app"]
    ours = ["minisession", "serve", "sessions:app", "--port", str(port), "--backend"]
    servers = {
        "minisession asyncio": [*ours, "asyncio"],
        "minisession trio": [*ours, "trio"],
        "uvicorn h11 asyncio": uvicorn,
    }
    return {
        f"{name}, {kind}": ["env", f"BENCH_SESSIONS={kind}", sys.executable, "-m", *command]
        for kind in KINDS
        for name, command in servers.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--json", type=Path, help="write the medians to this file")
    options = parser.parse_args()
    summaries = compare(commands, BASELINE, options.rounds, options.seconds, cookies=BROWSERS)
    print(table(summaries, BASELINE))
    if options.json:
        options.json.write_text(json.dumps(summaries, indent=2) + "\n")


if __name__ == "__main__":
    main()
