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


Summaries = dict[str, dict[str, float]]
"""The medians of each server, by name."""


@dataclass(frozen=True)
class Load:
    """What is requested, again and again."""

    method: str = "GET"
    path: str = "/"
    body_size: int = 0


@dataclass
class Round:
    """What one round of one server gave; `p99` in seconds, 0 if the generator cannot tell."""

    rate: float
    cpu: float
    p99: float


@dataclass
class Result:
    """What the rounds of one server gave."""

    rounds: list[Round] = field(default_factory=list)

    def median(self, name: str) -> float:
        return float(statistics.median(getattr(each, name) for each in self.rounds))

    def summary(self, baseline: Result) -> dict[str, float]:
        """Medians: requests/s, CPU µs per request, p99, and how many times the baseline's."""
        rate, cpu, p99 = map(self.median, ("rate", "cpu", "p99"))
        return {
            "requests_per_second": round(rate),
            "cpu_us_per_request": round(cpu),
            "p99_ms": round(p99 * 1e3, 1),
            "rate_ratio": round(rate / baseline.median("rate"), 2),
            "cpu_ratio": round(baseline.median("cpu") / cpu, 2),
        }


def measure(command: list[str], port: int, seconds: float, cookies: int, load: Load) -> Round:
    """Start a server, load it, and return what that gave."""
    command = [*pinned_to(0), *command]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(python_path())}
    with subprocess.Popen(command, env=environment, start_new_session=True) as server:
        try:
            wait_for(port)
            jars = [first_cookie(port) for _ in range(cookies)] or [""]
            generate(port, min(seconds, 1), jars, load)
            used = cpu_seconds(server.pid)
            answered, elapsed, p99 = generate(port, seconds, jars, load)
            used = cpu_seconds(server.pid) - used
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # hypercorn's worker is a child
    return Round(answered / elapsed, used / answered * 1e6, p99)


def pinned_to(core: int) -> list[str]:
    """Keep a command on one core, where there are several: a server and its load do not meet."""
    has_several = (os.cpu_count() or 1) > 1 and shutil.which("taskset")
    return ["taskset", "-c", str(core)] if has_several else []


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


def generate(
    port: int, seconds: float, jars: Sequence[str], load: Load
) -> tuple[int, float, float]:
    """Load a server, each request from the next browser; return requests, seconds and p99."""
    if shutil.which("wrk"):
        return generate_with_wrk(port, seconds, jars, load)
    return *generate_with_sockets(port, seconds, jars, load), 0.0


def generate_with_wrk(
    port: int, seconds: float, jars: Sequence[str], load: Load
) -> tuple[int, float, float]:
    command = [*pinned_to(1), "wrk", "--latency", "-t1", f"-c{CONNECTIONS}"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(script_for(jars, load))
        script.flush()
        command += [f"-d{max(1, round(seconds))}s", "-s", script.name, f"http://127.0.0.1:{port}/"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"wrk failed: {done.stderr or done.stdout}")
    found = re.search(r"(\d+) requests in ([\d.]+)s", done.stdout)
    slowest = re.search(r"99%\s+([\d.]+)(us|ms|s)", done.stdout)
    failed = "Non-2xx" in done.stdout or "Socket errors" in done.stdout
    if found is None or slowest is None or failed:
        raise RuntimeError(f"wrk met errors:\n{done.stdout}")
    p99 = float(slowest[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[slowest[2]]
    return int(found[1]), float(found[2]), p99


def script_for(jars: Sequence[str], load: Load) -> str:
    """What wrk sends: requests that were made before, in turn."""
    body = f"string.rep('x', {load.body_size})" if load.body_size else "nil"
    listed = ", ".join(json.dumps(jar) for jar in jars)
    return (
        "local requests, n = {}, 0\n"
        f"local body = {body}\n"
        "init = function()\n"
        f"  for i, jar in ipairs({{{listed}}}) do\n"
        "    local headers = {Host = '127.0.0.1', Cookie = jar ~= '' and jar or nil}\n"
        f"    requests[i] = wrk.format('{load.method}', '{load.path}', headers, body)\n"
        "  end\n"
        "end\n"
        "request = function() n = n % #requests + 1; return requests[n] end\n"
    )


def generate_with_sockets(
    port: int, seconds: float, jars: Sequence[str], load: Load
) -> tuple[int, float]:
    """One request in flight on each connection, in turn; each closes its own, for simplicity."""
    cookies = [f"Cookie: {jar}\r\n".encode() if jar else b"" for jar in jars]
    line = f"{load.method} {load.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()
    rest = b"Content-Length: %d\r\n\r\n%b" % (load.body_size, b"x" * load.body_size)
    requests = cycle([line + each + b"Connection: close\r\n" + rest for each in cookies])
    answered, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        clients = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(CONNECTIONS)]
        for client in clients:
            client.sendall(next(requests))
        for client in clients:
            with client:
                while client.recv(65536):
                    pass
            answered += 1
    return answered, time.perf_counter() - begun


def compare(
    commands: Commands,
    baseline: str,
    rounds: int,
    seconds: float,
    cookies: int = 0,
    load: Load = Load(),
) -> Summaries:
    """Measure all servers in interleaved rounds; each with so many browsers that have a cookie."""
    names = list(commands(0))
    results = {name: Result() for name in names}
    total = rounds * len(names)
    for done in range(total):
        name, port = names[done % len(names)], free_port()
        progress(done, total, name)
        results[name].rounds.append(measure(commands(port)[name], port, seconds, cookies, load))
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


def table(summaries: Summaries, baseline: str) -> str:
    lines = [f"{'':<34}{'requests/s':>12}{'CPU µs':>9}{'p99 ms':>9}{'rate ×':>9}{'CPU ×':>8}"]
    for name, each in summaries.items():
        lines.append(
            f"{name:<34}{each['requests_per_second']:>12}{each['cpu_us_per_request']:>9}"
            f"{each['p99_ms']:>9}{each['rate_ratio']:>9}{each['cpu_ratio']:>8}"
        )
    return "\n".join([*lines, f"× of {baseline}; more is better"])
