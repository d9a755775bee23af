"""Several users on one connection, as behind a reverse proxy, on real servers and a raw socket.

Some servers run the requests of a connection in one context, where a variable that was set for
one of them is still set for the next. No user may ever see another's session because of that, and
code that runs before the middleware finds a closed session at the worst.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.shared_connection_app import SERVERS

LARGE = 400_000  # bytes: more than a server reads at once, so that it suspends in the body
USERS = ["Ada", "Grace", "Alan", "Edsger", "Barbara"]

Request = tuple[str, int]  # whose it is, and the size of its body


@pytest.fixture(scope="module", params=list(SERVERS))
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run a server in a process of its own, which prints its port; it must stop in good order."""
    command = [sys.executable, "-m", "tests.shared_connection_app", request.param]
    root = Path(__file__).parents[1]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=root, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=30)
    assert b"Traceback" not in errors, errors.decode()


class Proxy:
    """One connection on which the requests of many users travel."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._answers = self._socket.makefile("rb")
        self._cookies: dict[str, str] = {}

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._socket.close()

    def begin(self, user: str) -> None:
        """Have a user start a session."""
        self._socket.sendall(_as_bytes(f"/begin/{user}", None, 0))
        headers, _ = self._read()
        found = re.search(r"(MINISESSID=[^;]+)", headers)
        assert found is not None
        self._cookies[user] = found[1]

    def look(self, requests: Sequence[Request]) -> list[tuple[str, str]]:
        """Send requests without waiting for answers; return what was found before and in each."""
        text = b"".join(_as_bytes("/look", self._cookies.get(user), n) for user, n in requests)
        writer = threading.Thread(target=self._socket.sendall, args=[text])
        writer.start()
        answers = [self._read() for _ in requests]
        writer.join()
        return [(_before(headers), body) for headers, body in answers]

    def _read(self) -> tuple[str, str]:
        headers = ""
        while (line := self._answers.readline().decode("latin-1")) not in ("\r\n", ""):
            headers += line
        assert headers.startswith("HTTP/1.1 200"), headers
        length = re.search(r"content-length: (\d+)", headers, re.IGNORECASE)
        assert length is not None
        return headers, self._answers.read(int(length[1])).decode()


def _as_bytes(path: str, cookie: str | None, size: int) -> bytes:
    field = "" if cookie is None else f"cookie: {cookie}\r\n"
    head = f"POST {path} HTTP/1.1\r\nhost: example.com\r\n{field}content-length: {size}\r\n\r\n"
    return head.encode() + b"x" * size


def _before(headers: str) -> str:
    found = re.search(r"x-before: (.*)\r\n", headers, re.IGNORECASE)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("size", [0, 10, LARGE], ids=["no body", "small bodies", "large bodies"])
@pytest.mark.parametrize("pipelined", [False, True], ids=["in turn", "pipelined"])
def test_users_who_share_a_connection_share_nothing_else(
    port: int, size: int, pipelined: bool
) -> None:
    requests = [(user, size) for user in [*USERS, "nobody", *reversed(USERS), *USERS]]
    with Proxy(port) as proxy:
        for user in USERS:
            proxy.begin(user)

        if pipelined:
            answers = proxy.look(requests)
        else:
            answers = [answer for request in requests for answer in proxy.look([request])]

    owners = ["None" if user == "nobody" else user for user, _ in requests]
    assert [body for _, body in answers] == [f"{size} {owner}" for owner in owners]
    assert {before for before, _ in answers} <= {"NoActiveSession", "SessionClosed"}


def test_large_and_small_requests_mix_on_several_connections(port: int) -> None:
    requests = [(user, size) for size in (0, LARGE, 3) for user in USERS]
    results: list[bool] = []

    def shared() -> None:
        with Proxy(port) as proxy:
            for user in USERS:
                proxy.begin(user)
            answers = proxy.look(requests)
        results.append(
            [body for _, body in answers] == [f"{size} {user}" for user, size in requests]
        )

    threads = [threading.Thread(target=shared) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [True] * 4
