"""How fast is the bundled server, beside uvicorn and hypercorn, and how much of that is h11's?

    python benchmarks/server.py [--rounds 5] [--seconds 4] [--json FILE] [--plot FILE.svg]

A trivial ASGI app, 64 keep-alive connections, one server process at a time under load, on one core,
and the load on another; the rounds are interleaved, so that whatever else the machine does hits
all servers alike. Access logs are off everywhere. Three kinds of load: a small GET, a POST of
64 kB, a download of 1 MB in sixteen pieces.

Two more take the small GET only, to say whose the time of our server is. The floor is an asyncio
protocol that reads nothing of what it answers: what it costs is the loop's and the kernel's. And
our server without h11 asks it once, and remembers the answer: what that saves is h11's. (h11 alone
in a loop, which is printed too, is much faster than between the system calls of a server, where
all code and data has left the processor's caches.)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import h11
from _bars import Bar, draw
from _http import BODY, Load, Summaries, compare, table

OURS = "minisession asyncio"
BASELINE = "uvicorn h11 asyncio"
FLOOR = "asyncio.Protocol, no HTTP"
WITHOUT_H11 = "minisession asyncio, without h11"
PIECE = b"x" * 65536

LOADS = {
    "small GET": Load(),
    "POST of 64 kB": Load("POST", "/upload", 65536),
    "download of 1 MB": Load("GET", "/download"),
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """What all servers serve."""
    if scope["type"] == "lifespan":
        await live(receive, send)
    elif scope["path"] == "/download":
        await download(send)
    else:
        if scope["path"] == "/upload":
            while (await receive())["more_body"]:
                pass
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": BODY})


async def live(receive: Any, send: Any) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def download(send: Any) -> None:
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for left in reversed(range(16)):
        await send({"type": "http.response.body", "body": PIECE, "more_body": left > 0})


def commands(port: int) -> dict[str, list[str]]:
    """The servers, by name; each serves `app` of this file on `port`."""
    python, target = sys.executable, f"{Path(__file__).stem}:app"
    ours = [python, __file__, "--serve", str(port), "--backend"]
    hypercorn = [python, "-m", "hypercorn", "--bind", f"127.0.0.1:{port}", "--log-level", "error"]
    uvicorn = [python, "-m", "uvicorn", "--http", "h11", "--loop", "asyncio", "--no-access-log"]
    return {
        OURS: [*ours, "asyncio"],
        "minisession trio": [*ours, "trio"],
        BASELINE: [*uvicorn, "--log-level", "error", "--port", str(port), target],
        "hypercorn asyncio": [*hypercorn, "--worker-class", "asyncio", target],
        "hypercorn trio": [*hypercorn, "--worker-class", "trio", target],
    }


def commands_and_parts(port: int) -> dict[str, list[str]]:
    """The servers, ours without h11, and the least that any of them can cost."""
    serve = [sys.executable, __file__, "--serve", str(port), "--backend"]
    return {
        **commands(port),
        WITHOUT_H11: [*serve, "asyncio", "--without-h11"],
        FLOOR: [*serve, "none"],
    }


class Answers(asyncio.Protocol):
    """Answers every segment that comes with the same bytes."""

    RESPONSE = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n"
        b"date: Mon, 01 Jan 2024 00:00:00 GMT\r\n\r\nhello"
    )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, _: bytes) -> None:
        self._transport.write(self.RESPONSE)


async def serve_floor(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", port)
    await server.serve_forever()


def serve_ours(port: int, backend: str) -> None:
    from minisession.server import ServerConfig, run  # noqa: PLC0415 - not for the peers

    run(app, ServerConfig(port=port), backend)  # type: ignore[arg-type]


def remember_what_h11_says() -> None:
    """Have h11 parse each head once; the load of this benchmark has one."""
    from minisession.server import requests  # noqa: PLC0415 - not for the peers

    requests._parse = lru_cache(maxsize=8)(requests._parse)


def panels(results: dict[str, Summaries]) -> dict[str, dict[str, Bar]]:
    """What is drawn: requests per second, with the ratio and CPU in words."""
    return {
        f"{name}: requests per second": {
            server: Bar(
                each["requests_per_second"],
                f"{each['rate_ratio']:g} ×, {each['cpu_us_per_request']:,.0f} µs CPU",
            )
            for server, each in summaries.items()
        }
        for name, summaries in results.items()
    }


def h11_alone() -> dict[str, float]:
    """CPU µs of h11 for what `wrk` sends: the head that we have it read, and a whole cycle."""
    raw = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    date = b"Mon, 01 Jan 2024 00:00:00 GMT"
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5"), (b"date", date)]
    whole = h11.Connection(h11.SERVER)

    def read_head() -> None:
        parser = h11.Connection(h11.SERVER)
        parser.receive_data(raw)
        parser.next_event()

    def run_cycle() -> None:
        whole.receive_data(raw)
        whole.next_event()
        whole.next_event()
        whole.send(h11.Response(status_code=200, headers=headers, reason=b"OK"))
        whole.send(h11.Data(data=BODY))
        whole.send(h11.EndOfMessage())
        whole.start_next_cycle()

    return {"head": cost(read_head), "cycle": cost(run_cycle)}


def cost(function: Callable[[], None], times: int = 500) -> float:
    """CPU µs of one call, in the best of many tries."""
    tries: list[float] = []
    for _ in range(20):
        begun = time.process_time()
        for _ in range(times):
            function()
        tries.append((time.process_time() - begun) / times * 1e6)
    return round(min(tries), 1)


def whose(small: Summaries) -> str:
    """Say whose the time of a small GET on asyncio is."""
    names = (OURS, WITHOUT_H11, FLOOR)
    whole, without_h11, floor = (small[name]["cpu_us_per_request"] for name in names)
    return (
        f"of {whole:.0f} µs for a small GET on asyncio, {whole - without_h11:.0f} are h11's,"
        f" {floor:.0f} the loop's and the kernel's, {without_h11 - floor:.0f} the server's and the"
        " app's"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--json", type=Path, help="write the medians to this file")
    parser.add_argument("--plot", type=Path, help="draw the table as an SVG")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--backend", default="asyncio", help=argparse.SUPPRESS)
    parser.add_argument("--without-h11", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve and options.backend == "none":
        asyncio.run(serve_floor(options.serve))
        return
    if options.without_h11:
        remember_what_h11_says()
    if options.serve:
        serve_ours(options.serve, options.backend)
        return
    results: dict[str, Summaries] = {}
    for name, load in LOADS.items():
        who = commands_and_parts if load == Load() else commands
        results[name] = compare(who, BASELINE, options.rounds, options.seconds, load=load)
        print(f"{name}\n{table(results[name], BASELINE)}\n", flush=True)
    alone = h11_alone()
    print(f"h11 alone, CPU µs: {alone['head']} to read the head, {alone['cycle']} a whole cycle")
    print(whose(results["small GET"]))
    if options.json:
        options.json.write_text(json.dumps({**results, "h11 alone": alone}, indent=2) + "\n")
    if options.plot:
        options.plot.write_text(draw("Servers on one core, 64 connections", panels(results)))


if __name__ == "__main__":
    main()
