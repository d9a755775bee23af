"""How many requests a second does the bundled server answer, beside uvicorn and hypercorn?

    python benchmarks/server.py [--rounds 5] [--seconds 4] [--json FILE]

A trivial ASGI app, 64 keep-alive connections, one server process at a time under load; the rounds
are interleaved, so that whatever else the machine does hits all servers alike. Load comes from
`wrk` if it is there, else from a small generator in this file, which is itself the bottleneck:
compare ratios, not absolute numbers. CPU per request is user and system time of the server alone.
Access logs are off everywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONNECTIONS = 64
BODY = b"hello"
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


@dataclass
class Result:
    """What the rounds of one server gave."""

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def summary(self, baseline: Result) -> dict[str, float]:
        """Medians: requests/s, CPU µs per request, and how many times the baseline's."""
        rate, cpu = statistics.median(self.rates), statistics.median(self.cpu)
        return {
            "requests_per_second": round(rate),
            "cpu_us_per_request": round(cpu),
            "rate_ratio": round(rate / statistics.median(baseline.rates), 2),
            "cpu_ratio": round(statistics.median(baseline.cpu) / cpu, 2),
        }


def measure(command: list[str], port: int, seconds: float) -> tuple[float, float]:
    """Start a server, load it, and return requests/s and its CPU µs per request."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(python_path())}
    with subprocess.Popen(command, env=environment, start_new_session=True) as server:
        try:
            wait_for(port)
            load(port, min(seconds, 1))
            used = cpu_seconds(server.pid)
            answered, elapsed = load(port, seconds)
            used = cpu_seconds(server.pid) - used
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # hypercorn's worker is a child
    return answered / elapsed, used / answered * 1e6


def python_path() -> list[str]:
    here = Path(__file__).resolve().parent
    return [str(here), str(here.parent)]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of the workers that it has started."""
    used = 0.0
    for each in [pid, *descendants(pid)]:
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [each for child in map(int, children) for each in [child, *descendants(child)]]


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"no server on port {port}")


def load(port: int, seconds: float) -> tuple[int, float]:
    """Load a server; return answered requests and seconds."""
    return load_with_wrk(port, seconds) if shutil.which("wrk") else load_with_sockets(port, seconds)


def load_with_wrk(port: int, seconds: float) -> tuple[int, float]:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s"]
    command.append(f"http://127.0.0.1:{port}/")
    report = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    found = re.search(r"(\d+) requests in ([\d.]+)s", report)
    if found is None or "Non-2xx" in report or "Socket errors" in report:
        raise RuntimeError(f"wrk met errors:\n{report}")
    return int(found[1]), float(found[2])


def load_with_sockets(port: int, seconds: float) -> tuple[int, float]:
    """One request in flight on each connection, in turn."""
    request = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    clients = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(CONNECTIONS)]
    answered, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for client in clients:
            client.sendall(request)
        for client in clients:
            received = b""
            while not received.endswith(BODY):
                received += client.recv(4096)
            answered += 1
    elapsed = time.perf_counter() - begun
    for client in clients:
        client.close()
    return answered, elapsed


def compare(rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Measure all servers in interleaved rounds."""
    names = list(commands(0))
    results = {name: Result() for name in names}
    total = rounds * len(names)
    for done in range(total):
        name, port = names[done % len(names)], free_port()
        progress(done, total, name)
        rate, cpu = measure(commands(port)[name], port, seconds)
        results[name].rates.append(rate)
        results[name].cpu.append(cpu)
    progress(total, total, "")
    return {name: result.summary(results[BASELINE]) for name, result in results.items()}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def progress(done: int, total: int, name: str) -> None:
    bar = "#" * (30 * done // total)
    print(f"\r[{bar:<30}] {done}/{total} {name:<22}", end="", file=sys.stderr, flush=True)
    if done == total:
        print(file=sys.stderr)


def table(summaries: dict[str, dict[str, float]]) -> str:
    lines = [f"{'server':<22}{'requests/s':>12}{'CPU µs':>9}{'rate ×':>9}{'CPU ×':>8}"]
    for name, each in summaries.items():
        lines.append(
            f"{name:<22}{each['requests_per_second']:>12}{each['cpu_us_per_request']:>9}"
            f"{each['rate_ratio']:>9}{each['cpu_ratio']:>8}"
        )
    return "\n".join([*lines, f"× of {BASELINE}; more is better"])


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
    summaries = compare(options.rounds, options.seconds)
    print(table(summaries))
    if options.json:
        options.json.write_text(json.dumps(summaries, indent=2) + "\n")


if __name__ == "__main__":
    main()
