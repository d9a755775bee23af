"""After many requests a process holds what it held before: memory, objects, tasks and files."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.command import ROOT, environment, running
from tests.effort import Tally, effort

# It is measured by what Linux says of a process.
pytestmark = [pytest.mark.slow, pytest.mark.needs("Linux")]

FEW = 16
"""Objects of one type that may come and go: whatever the two moments of measuring met."""


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, tuple[int, int]]:
    """The types of which there are more than 1 % more objects than before."""
    return {
        name: (before.get(name, 0), count)
        for name, count in after.items()
        if count > before.get(name, 0) * 1.01 + FEW
    }


def check(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert grown(before["objects"], after["objects"]) == {}
    assert after["rss"] < before["rss"] * 1.05
    assert after["tasks"] == before["tasks"]
    assert after["threads"] <= before["threads"]  # one that idles may end, of anyio's own
    assert after["files"] <= before["files"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_the_middleware_keeps_nothing(
    kind: str, backend: str, tmp_path: Path, tally: Tally
) -> None:
    requests = effort(4_000, soak=200_000) // (1 if kind == "memory" else 4)
    where = "memory" if kind == "memory" else str(tmp_path / "sessions.db")
    command = [sys.executable, "-m", "tests.leaks.endurance", backend, where, str(requests)]

    run = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )

    assert run.returncode == 0, run.stderr
    check(*json.loads(run.stdout))
    tally("requests", requests)


PAGES = ["count", "count", "login", "logout", "error"]


def leave_early(url: str, page: str, octets: int) -> None:
    """Send a request, read a little of the answer, and hang up without a word."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        request = f"GET /{page} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        connection.sendall(request[:octets] if octets else request)
        if not octets:
            connection.recv(100)


def visit_often(url: str, requests: int) -> dict[str, Any]:
    """Send so many requests over kept and broken connections; return what the server holds."""
    choices = random.Random(requests)
    for number in range(requests // 100):
        with httpx.Client(base_url=url) as browser:
            for _ in range(98):
                answer = browser.get(f"/{choices.choice(PAGES)}")
                assert answer.status_code in (200, 500)
        leave_early(url, "forever", 0)
        leave_early(url, "count", 1 + number % 30)
    holds: dict[str, Any] = httpx.get(f"{url}/measure").json()
    return holds


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_bundled_server_keeps_nothing(backend: str, tmp_path: Path, tally: Tally) -> None:
    requests = effort(1_000, soak=200_000)
    command = ["serve", "tests.leaks.served:app", "--port", "0", "--backend", backend]

    with running(tmp_path, *command) as server:
        before = visit_often(server.url, max(requests // 4, 600))
        after = visit_often(server.url, requests)

    check(before, after)
    tally("requests", requests)
