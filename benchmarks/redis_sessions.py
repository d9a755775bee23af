"""What does a session on Redis cost a request, beside starsessions in the same app?

    python benchmarks/redis_sessions.py [--redis redis://host:6379/9] [--rounds 3] [--seconds 4]

Each request reads a counter and writes it. 256 browsers take turns on 64 connections. Without
`--redis`, a redis-server is started on a free port, without persistence. starsessions and redis-py
must be installed: `pip install starsessions redis`. It reads the session and writes it as a whole;
what that loses is not measured here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _http import compare, free_port, pinned_to, table, wait_for

BROWSERS = 256
BASELINE = "starsessions, uvicorn"


def make_app() -> Any:
    """The app that the environment names; a server imports it as `redis_sessions:app`."""
    from server import app as plain  # noqa: PLC0415 - benchmarks/server.py

    url = os.environ["BENCH_REDIS"]
    if os.environ["BENCH_LIBRARY"] == "starsessions":
        return _on_starsessions(plain, url)
    return _on_minisession(plain, url)


def _on_minisession(plain: Any, url: str) -> Any:
    from minisession import SessionMiddleware, session  # noqa: PLC0415

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            session["visits"] = session.get("visits", 0) + 1
        await plain(scope, receive, send)

    return SessionMiddleware(counting, store=url)


def _on_starsessions(plain: Any, url: str) -> Any:
    from redis.asyncio import Redis  # noqa: PLC0415
    from starsessions import SessionAutoloadMiddleware, SessionMiddleware  # noqa: PLC0415
    from starsessions.stores.redis import RedisStore  # noqa: PLC0415

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["session"]["visits"] = scope["session"].get("visits", 0) + 1
        await plain(scope, receive, send)

    store = RedisStore(connection=Redis.from_url(url))
    return SessionMiddleware(
        SessionAutoloadMiddleware(counting),
        store=store,
        lifetime=10_800,
        rolling=True,
        cookie_https_only=False,
    )


app = make_app() if "BENCH_LIBRARY" in os.environ else None


def commands(port: int) -> dict[str, list[str]]:
    """Each library on uvicorn, and ours on our server too."""
    uvicorn = ["uvicorn", "--http", "h11", "--loop", "asyncio", "--no-access-log"]
    uvicorn += ["--log-level", "error", "--port", str(port), "redis_sessions:app"]
    bundled = ["minisession", "serve", "redis_sessions:app", "--port", str(port)]
    return {
        BASELINE: _command("starsessions", uvicorn),
        "minisession, uvicorn": _command("minisession", uvicorn),
        "minisession, bundled, asyncio": _command("minisession", bundled),
        "minisession, bundled, trio": _command("minisession", [*bundled, "--backend", "trio"]),
    }


def _command(library: str, server: list[str]) -> list[str]:
    return ["env", f"BENCH_LIBRARY={library}", sys.executable, "-m", *server]


@contextmanager
def a_redis(url: str | None) -> Iterator[str]:
    """Give the URL of a server; start one if there is none."""
    if url:
        yield url
        return
    if shutil.which("redis-server") is None:
        raise SystemExit("there is no redis-server here; name one: --redis redis://host:6379/9")
    port = free_port()
    command = [*pinned_to(1), "redis-server", "--port", str(port), "--save", ""]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            wait_for(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--redis", metavar="URL", help="a server whose database may be filled")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--json", type=Path, help="write the medians to this file")
    options = parser.parse_args()
    with a_redis(options.redis) as url:
        os.environ["BENCH_REDIS"] = url
        summaries = compare(commands, BASELINE, options.rounds, options.seconds, cookies=BROWSERS)
    print(table(summaries, BASELINE))
    if options.json:
        options.json.write_text(json.dumps(summaries, indent=2) + "\n")


if __name__ == "__main__":
    main()
