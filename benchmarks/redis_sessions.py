"""What does a session on Redis cost a request, beside starsessions in the same app?

    python benchmarks/redis_sessions.py [--redis redis://host:6379/9] [--rounds 3] [--seconds 4]

Each request reads a counter and writes it. 256 browsers take turns on 64 connections. Without
`--redis`, a redis-server is started on a free port, without persistence. starsessions and redis-py
must be installed: `pip install starsessions redis`. It reads the session and writes it as a whole;
what that loses is not measured here.

The rows without session show what the server and the app alone take: no session can make a request
cheaper than that. What the session costs is the difference to that row of the same server. Of that,
the rows of the store alone show what its two commands take, without any session around them; the
rows in memory, what the session takes without any network.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _http import Summaries, compare, free_port, pinned_to, table, wait_for

BROWSERS = 256
BASELINE = "starsessions, uvicorn"
WITHOUT = "no session"
IN_MEMORY = "minisession in memory"
STORE_ALONE = "RedisStore alone"
LIFE = 10_800.0  # seconds


def make_app() -> Any:
    """The app that the environment names; a server imports it as `redis_sessions:app`."""
    from server import app as plain  # noqa: PLC0415 - benchmarks/server.py

    url = os.environ["BENCH_REDIS"]
    library = os.environ["BENCH_LIBRARY"]
    if library == "starsessions":
        return _on_starsessions(plain, url)
    if library == WITHOUT:
        return _without_session(plain)
    if library == STORE_ALONE:
        return _on_the_store_alone(plain, url)
    return _on_minisession(plain, "memory://" if library == IN_MEMORY else url)


def _without_session(plain: Any) -> Any:
    """The same requests and responses: the browsers have a cookie, which nobody looks at."""
    cookie = (b"set-cookie", b"MINISESSID=" + b"x" * 55)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def send_with_cookie(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append(cookie)
            await send(message)

        is_first_visit = scope["type"] == "http" and not any(
            n == b"cookie" for n, _ in scope["headers"]
        )
        await plain(scope, receive, send_with_cookie if is_first_visit else send)

    return app


def _on_minisession(plain: Any, url: str) -> Any:
    from minisession import SessionMiddleware, session  # noqa: PLC0415

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            session["visits"] = session.get("visits", 0) + 1
        await plain(scope, receive, send)

    return SessionMiddleware(counting, store=url)


def _on_the_store_alone(plain: Any, url: str) -> Any:
    """What a session asks of its store, and nothing else: no cookie is checked, no id hashed."""
    from minisession.abc import Create, Write  # noqa: PLC0415
    from minisession.stores import open_store  # noqa: PLC0415

    store = open_store(url)

    async def visit(headers: Any) -> str:
        cookies = [value for name, value in headers if name == b"cookie"]
        handle = cookies[0].decode().partition("=")[2] if cookies else secrets.token_urlsafe(16)
        now = time.time()
        record = await store.load(handle, now)
        if record is None:
            items = {"visits": b"1"}
            change = Create(handle, bytes(32), items, now, now + LIFE, now + LIFE, 1 << 20)
            await store.commit([change], now)
        else:
            visits = b"%d" % (int(record.items["visits"]) + 1)
            await store.commit([Write(handle, 0, now + LIFE, 1 << 20, {"visits": visits})], now)
        return handle

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            async with store:
                await plain(scope, receive, send)
            return
        handle = await visit(scope["headers"])

        async def send_with_cookie(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"set-cookie", b"id=" + handle.encode()))
            await send(message)

        await plain(scope, receive, send_with_cookie)

    return app


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
    """Each library on uvicorn, ours on our server too; its parts alone; and no session at all."""
    uvicorn = ["uvicorn", "--http", "h11", "--loop", "asyncio", "--no-access-log"]
    uvicorn += ["--log-level", "error", "--port", str(port), "redis_sessions:app"]
    bundled = ["minisession", "serve", "redis_sessions:app", "--port", str(port)]
    return {
        BASELINE: _command("starsessions", uvicorn),
        "minisession, uvicorn": _command("minisession", uvicorn),
        "minisession, bundled, asyncio": _command("minisession", bundled),
        "minisession, bundled, trio": _command("minisession", [*bundled, "--backend", "trio"]),
        f"{STORE_ALONE}, uvicorn": _command(STORE_ALONE, uvicorn),
        f"{STORE_ALONE}, bundled, asyncio": _command(STORE_ALONE, bundled),
        f"{IN_MEMORY}, uvicorn": _command(IN_MEMORY, uvicorn),
        f"{IN_MEMORY}, bundled, asyncio": _command(IN_MEMORY, bundled),
        f"{WITHOUT}, uvicorn": _command(WITHOUT, uvicorn),
        f"{WITHOUT}, bundled, asyncio": _command(WITHOUT, bundled),
        f"{WITHOUT}, bundled, trio": _command(WITHOUT, [*bundled, "--backend", "trio"]),
    }


def costs(summaries: Summaries) -> str:
    """What the session of a request costs: the CPU time beyond that of the same server without."""
    own = {
        name: each["cpu_us_per_request"] - summaries[_server_of(name)]["cpu_us_per_request"]
        for name, each in summaries.items()
        if not name.startswith(WITHOUT)
    }
    lines = [f"{'CPU µs of the session alone':<34}{'':>12}{'µs':>9}{'×':>9}"]
    for name, cost in own.items():
        lines.append(f"{name:<34}{'':>12}{cost:>9}{round(own[BASELINE] / cost, 2):>9}")
    return "\n".join(lines)


def _server_of(name: str) -> str:
    """The row of the same server without a session."""
    return WITHOUT + name[name.index(",") :]


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
    print(costs(summaries))
    if options.json:
        options.json.write_text(json.dumps(summaries, indent=2) + "\n")


if __name__ == "__main__":
    main()
