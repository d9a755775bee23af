"""Load for a server process, and what it cost: shared by the benchmarks that speak HTTP.

Load comes from `wrk` if it is there, else from a small generator in this file, which is itself the
bottleneck: compare ratios, not absolute numbers. CPU per request is user and system time of the
server and its workers alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

CONNECTIONS = 64
BODY = b"hello"  # what every app answers

Commands = Callable[[int], dict[str, list[str]]]
"""Given a port, the commands of the servers to compare, by name; each serves on that port."""


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


def measure(command: list[str], port: int, seconds: float, cookies: int) -> tuple[float, float]:
    """Start a server, load it, and return requests/s and its CPU µs per request."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(python_path())}
    with subprocess.Popen(command, env=environment, start_new_session=True) as server:
        try:
            wait_for(port)
            jars = [first_cookie(port) for _ in range(cookies)] or [""]
            load(port, min(seconds, 1), jars)
            used = cpu_seconds(server.pid)
            answered, elapsed = load(port, seconds, jars)
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


def first_cookie(port: int) -> str:
    """Visit for the first time; return what a browser sends back."""
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b"")).decode()
    found = re.search(r"(?im)^set-cookie: ([^;\r\n]+)", answer)
    if found is None:
        raise RuntimeError(f"no cookie came with:\n{answer}")
    return found[1]


def load(port: int, seconds: float, jars: Sequence[str]) -> tuple[int, float]:
    """Load a server, each request from the next browser; return answered requests and seconds."""
    if shutil.which("wrk"):
        return load_with_wrk(port, seconds, jars)
    return load_with_sockets(port, seconds, jars)


def load_with_wrk(port: int, seconds: float, jars: Sequence[str]) -> tuple[int, float]:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(script_for(jars))
        script.flush()
        command += ["-s", script.name, f"http://127.0.0.1:{port}/"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"wrk failed: {done.stderr or done.stdout}")
    found = re.search(r"(\d+) requests in ([\d.]+)s", done.stdout)
    if found is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(f"wrk met errors:\n{done.stdout}")
    return int(found[1]), float(found[2])


def script_for(jars: Sequence[str]) -> str:
    """What wrk sends: requests that were made before, in turn."""
    listed = ", ".join(json.dumps(jar) for jar in jars)
    return (
        "local requests, n = {}, 0\n"
        "init = function()\n"
        f"  for i, jar in ipairs({{{listed}}}) do\n"
        "    local headers = {Host = '127.0.0.1', Cookie = jar ~= '' and jar or nil}\n"
        "    requests[i] = wrk.format('GET', '/', headers)\n"
        "  end\n"
        "end\n"
        "request = function() n = n % #requests + 1; return requests[n] end\n"
    )


def load_with_sockets(port: int, seconds: float, jars: Sequence[str]) -> tuple[int, float]:
    """One request in flight on each connection, in turn."""
    cookies = [f"Cookie: {jar}\r\n".encode() if jar else b"" for jar in jars]
    requests = cycle(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n%b\r\n" % each for each in cookies)
    clients = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(CONNECTIONS)]
    answered, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for client in clients:
            client.sendall(next(requests))
        for client in clients:
            received = b""
            while not received.endswith(BODY):
                received += client.recv(4096)
            answered += 1
    elapsed = time.perf_counter() - begun
    for client in clients:
        client.close()
    return answered, elapsed


def compare(
    commands: Commands, baseline: str, rounds: int, seconds: float, cookies: int = 0
) -> dict[str, dict[str, float]]:
    """Measure all servers in interleaved rounds; each with so many browsers that have a cookie."""
    names = list(commands(0))
    results = {name: Result() for name in names}
    total = rounds * len(names)
    for done in range(total):
        name, port = names[done % len(names)], free_port()
        progress(done, total, name)
        rate, cpu = measure(commands(port)[name], port, seconds, cookies)
        results[name].rates.append(rate)
        results[name].cpu.append(cpu)
    progress(total, total, "")
    return {name: result.summary(results[baseline]) for name, result in results.items()}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def progress(done: int, total: int, name: str) -> None:
    bar = "#" * (30 * done // total)
    print(f"\r[{bar:<30}] {done}/{total} {name:<34}", end="", file=sys.stderr, flush=True)
    if done == total:
        print(file=sys.stderr)


def table(summaries: dict[str, dict[str, float]], baseline: str) -> str:
    lines = [f"{'':<34}{'requests/s':>12}{'CPU µs':>9}{'rate ×':>9}{'CPU ×':>8}"]
    for name, each in summaries.items():
        lines.append(
            f"{name:<34}{each['requests_per_second']:>12}{each['cpu_us_per_request']:>9}"
            f"{each['rate_ratio']:>9}{each['cpu_ratio']:>8}"
        )
    return "\n".join([*lines, f"× of {baseline}; more is better"])
