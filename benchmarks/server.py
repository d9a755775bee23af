"""How many requests a second does the bundled server answer, beside uvicorn and hypercorn?

    python benchmarks/server.py [--rounds 5] [--seconds 4] [--json FILE]

A trivial ASGI app, 64 keep-alive connections, one server process at a time under load; the rounds
are interleaved, so that whatever else the machine does hits all servers alike. Access logs are off
everywhere.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from _http import BODY, compare, table

BASELINE = "uvicorn h11 asyncio"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """What all servers serve."""
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def commands(port: int) -> dict[str, list[str]]:
    """The servers, by name; each serves `app` of this file on `port`."""
    python, target = sys.executable, f"{Path(__file__).stem}:app"
    ours = [python, __file__, "--serve", str(port), "--backend"]
    hypercorn = [python, "-m", "hypercorn", "--bind", f"127.0.0.1:{port}", "--log-level", "error"]
    uvicorn = [python, "-m", "uvicorn", "--http", "h11", "--loop", "asyncio", "--no-access-log"]
    return {
        "minisession asyncio": [*ours, "asyncio"],
        "minisession trio": [*ours, "trio"],
        BASELINE: [*uvicorn, "--log-level", "error", "--port", str(port), target],
        "hypercorn asyncio": [*hypercorn, "--worker-class", "asyncio", target],
        "hypercorn trio": [*hypercorn, "--worker-class", "trio", target],
    }


def serve_ours(port: int, backend: str) -> None:
    from minisession.server import ServerConfig, run  # noqa: PLC0415 - not for the peers

    run(app, ServerConfig(port=port), backend)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--json", type=Path, help="write the medians to this file")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--backend", default="asyncio", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_ours(options.serve, options.backend)
        return
    summaries = compare(commands, BASELINE, options.rounds, options.seconds)
    print(table(summaries, BASELINE))
    if options.json:
        options.json.write_text(json.dumps(summaries, indent=2) + "\n")


if __name__ == "__main__":
    main()
