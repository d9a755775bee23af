"""Space and time under siege: a server in a process of its own, beside hundreds of clients."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from statistics import median

import pytest

from tests.server.kit import answer, get

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
KIB = 1024
ANSWER = answer(b"/x ")

SERVER = """
import resource, sys
from minisession.server import ServerConfig, run
from tests.server.kit import echo

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), hard))
config = ServerConfig(port=0, keep_alive_timeout=float(sys.argv[3]), head_timeout=1)
run(echo, config, sys.argv[1], on_start=lambda found: print(found[0][1], flush=True))
"""


class Server:
    """A server process, as the system sees it."""

    def __init__(self, backend: str, descriptors: int, keep_alive: float) -> None:
        command = [sys.executable, "-c", SERVER, backend, str(descriptors), str(keep_alive)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.address = ("127.0.0.1", int(self.process.stdout.readline()))

    def resident(self) -> int:
        """Bytes of memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu(self) -> float:
        """Seconds used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=10)


Start = Callable[..., Server]


@pytest.fixture
def start(anyio_backend: str) -> Iterator[Start]:
    with ExitStack() as stack:

        def started(descriptors: int = 4096, keep_alive: float = 60) -> Server:
            server = Server(anyio_backend, descriptors, keep_alive)
            stack.enter_context(server.process)
            stack.callback(server.process.kill)
            return server

        yield started


def visit(client: socket.socket) -> None:
    client.sendall(get("/x"))
    received = b""
    while len(received) < len(ANSWER):
        part = client.recv(len(ANSWER) - len(received))
        assert part, "the server has closed the connection"
        received += part
    assert received == ANSWER


def test_an_idle_connection_takes_twelve_kibibytes_at_the_most(start: Start) -> None:
    server, clients = start(), 1000
    with ExitStack() as stack:
        for _ in range(50):
            with server.connect() as client:
                visit(client)
        before = server.resident()

        for _ in range(clients):
            visit(stack.enter_context(server.connect()))

        assert (server.resident() - before) / clients < 12 * KIB


def test_a_server_without_descriptors_waits_and_recovers(start: Start) -> None:
    server = start(descriptors=40)
    with ExitStack() as stack:
        for _ in range(100):  # more than fit; each says something, so that none of them is idle
            stack.enter_context(server.connect()).sendall(b"G")
        begun, used = time.monotonic(), server.cpu()
        time.sleep(0.5)
        assert server.cpu() - used < (time.monotonic() - begun) / 2, "it spins"
    with server.connect() as client:
        visit(client)


def test_idle_connections_make_room_when_descriptors_are_exhausted(start: Start) -> None:
    server = start(descriptors=40)
    with ExitStack() as stack:
        for _ in range(100):
            visit(stack.enter_context(server.connect()))


def test_clients_that_drip_their_heads_are_cut_off_and_delay_nobody(start: Start) -> None:
    server = start()
    delays: list[float] = []
    with ExitStack() as stack:
        slow = [stack.enter_context(server.connect()) for _ in range(500)]
        for group in cycle([slow[i::20] for i in range(20)]):
            if not sum(map(drip, group)):
                break
            begun = time.monotonic()
            with server.connect() as client:
                visit(client)
            delays.append(time.monotonic() - begun)

        assert all(is_over(client) for client in slow)
    assert len(delays) > 20  # while they dripped
    assert median(delays) < 0.05


def drip(client: socket.socket) -> bool:
    """Send one more octet of a head; tell whether the server still takes it."""
    try:
        client.sendall(b"G")
    except ConnectionError:
        return False
    return True


def is_over(client: socket.socket) -> bool:
    """Whether the server has ended the connection: with an answer, or by a reset after it."""
    client.settimeout(5)
    try:
        return client.recv(4096).startswith(b"HTTP/1.1 4")
    except ConnectionError as error:
        return error.errno == errno.ECONNRESET
