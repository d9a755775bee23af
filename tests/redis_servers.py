"""Real servers for the tests of the Redis store: single, behind Sentinel, in a cluster.

Each kind is started once for a process of pytest, when a test first asks for it, on free ports,
without persistence, in a folder of its own. Tests do not empty a server: each has a prefix of its
own. Every server ends with the process that started it, even if that is killed.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

NEEDS_REDIS = pytest.mark.needs("redis-server", "redis-sentinel", "redis-cli", "Linux")
NEEDS_VALKEY = pytest.mark.needs("valkey-server", "redis-cli", "Linux")

Program = Literal["redis-server", "valkey-server"]

_prefixes = itertools.count()

_starter = ThreadPoolExecutor(1)
"""The thread that starts the servers: the kernel kills them when that ends, and it ends last."""


def fresh_prefix() -> str:
    """A prefix that no other test of this process uses, and no other process on its servers."""
    return f"t{os.getpid()}-{next(_prefixes)}:"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Look again and again until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"after {seconds:g} s still not: {what}"
        time.sleep(0.05)  # a server of others tells nobody when it is ready, or has taken over


class Server:
    """One server process, which can be killed, frozen, and started again with its data."""

    def __init__(self, program: str = "redis-server", *options: str, tls: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="minisession-redis-"))
        self.port = free_port()
        self.program = program
        self.options = options
        self.tls = tls
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.end)
        self.start()

    def start(self) -> None:
        """Start it on its port; on another one if that was taken since it was found free."""
        try:
            self._start()
        except (AssertionError, subprocess.TimeoutExpired):
            if "Address already in use" not in self.log:
                raise
            self.port = free_port()
            self._start()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def _start(self) -> None:
        config = self.folder / "server.conf"
        ports = ["--port", "0", "--tls-port", str(self.port)]
        if not self.tls:
            ports = ["--port", str(self.port)]
        if self.program != "redis-sentinel":
            config.touch()
            ports += ["--save", "", "--bind", "127.0.0.1", "--dir", str(self.folder)]
            ports += ["--repl-diskless-sync-delay", "0"]
        with (self.folder / "log").open("wb") as log:
            words = ["setpriv", "--pdeathsig", "KILL", self.program, str(config), *ports]

            def start() -> subprocess.Popen[bytes]:
                return subprocess.Popen(
                    [*words, *self.options], stdout=log, stderr=subprocess.STDOUT, cwd=self.folder
                )

            self.process = _starter.submit(start).result()
        until(self.answers, f"{self.program} answers: {self.folder}/log")

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log[-2000:]
        if self.tls:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0
        reply = self.cli("PING")
        return reply == "PONG" or reply.startswith("NOAUTH")

    def cli(self, *words: object) -> str:
        """Give a command, and return its answer as text."""
        run = subprocess.run(
            ["redis-cli", "-p", str(self.port), *map(str, words)],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return run.stdout.strip()

    def says(self, what: str, *words: object) -> bool:
        """Whether an answer contains something."""
        return what in self.cli(*words)

    def wait_for_sync(self, primary: Server) -> None:
        """Wait until this replica has what its primary has, and is sent what comes."""
        until(partial(self.says, "master_link_status:up", "INFO", "replication"), "in sync")
        online = re.compile(rf"port={self.port},state=online,\S*lag=[01]")
        until(lambda: online.search(primary.cli("INFO", "replication")), "online")

    def kill(self) -> None:
        """End it without a warning."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """Let it answer nothing any more, with its connections open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Kill it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.end)

    def url(self, **options: object) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"redis://127.0.0.1:{self.port}/0?{query}"


@functools.cache
def redis() -> Server:
    return Server("redis-server")


@functools.cache
def valkey() -> Server:
    return Server("valkey-server")


class Sentinels:
    """A primary, its replicas, and one Sentinel that watches them."""

    def __init__(self, replicas: int = 0, *options: str, program: Program = "redis-server") -> None:
        self.primary = Server(program, *options)
        follow = ("--replicaof", f"127.0.0.1 {self.primary.port}")
        self.replicas = [Server(program, *follow, *options) for _ in range(replicas)]
        for replica in self.replicas:
            replica.wait_for_sync(self.primary)
        self.sentinel = self._watch()

    def _watch(self) -> Server:
        sentinel = Server.__new__(Server)
        sentinel.folder = Path(tempfile.mkdtemp(prefix="minisession-sentinel-"))
        (sentinel.folder / "server.conf").write_text(
            f"sentinel monitor shop 127.0.0.1 {self.primary.port} 1\n"
            "sentinel down-after-milliseconds shop 500\n"
            "sentinel failover-timeout shop 3000\n"
        )
        sentinel.port, sentinel.program = free_port(), "redis-sentinel"
        sentinel.options, sentinel.tls, sentinel.process = (), False, None
        atexit.register(sentinel.end)
        sentinel.start()
        until(lambda: str(self.primary.port) in self.address(sentinel), "Sentinel knows it")
        return sentinel

    def address(self, sentinel: Server | None = None) -> str:
        """Whom Sentinel takes for the primary."""
        return (sentinel or self.sentinel).cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shop")

    def end(self) -> None:
        for server in (self.sentinel, *self.replicas, self.primary):
            server.end()

    def url(self, **options: object) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/shop/0?{query}"


@functools.cache
def sentinels() -> Sentinels:
    return Sentinels()


class Cluster:
    """Three primaries that share the slots, and replicas of each."""

    def __init__(self, replicas: int = 0, *options: str, program: Program = "redis-server") -> None:
        self.primaries = [ClusterServer(program, options) for _ in range(3)]
        self.replicas = [ClusterServer(program, options) for _ in range(3 * replicas)]
        first = self.primaries[0]
        for server in self.servers[1:]:
            first.cli("CLUSTER", "MEET", "127.0.0.1", server.port, server.bus)
        bounds = [0, 5461, 10923, 16384]
        for number, server in enumerate(self.primaries):
            server.cli("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        self.all_say("cluster_state:ok")
        self.all_say(f"cluster_known_nodes:{len(self.servers)}")
        for number, replica in enumerate(self.replicas):
            primary = self.primaries[number % 3].cli("CLUSTER", "MYID")
            until(partial(replica.says, "OK", "CLUSTER", "REPLICATE", primary), "replicates")
        for number, replica in enumerate(self.replicas):
            replica.wait_for_sync(self.primaries[number % 3])

    @property
    def servers(self) -> list[ClusterServer]:
        return [*self.primaries, *self.replicas]

    def all_say(self, what: str) -> None:
        for server in self.servers:
            until(partial(server.says, what, "CLUSTER", "INFO"), what)

    def end(self) -> None:
        for server in self.servers:
            server.end()

    def url(self, **options: object) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"redis+cluster://127.0.0.1:{self.primaries[0].port}?{query}"


class ClusterServer(Server):
    """A server of a cluster."""

    def __init__(self, program: Program, options: Sequence[str]) -> None:
        self.bus = free_port()
        super().__init__(
            program,
            *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"),
            *("--cluster-port", str(self.bus), "--cluster-node-timeout", "1000"),
            *options,
        )


@functools.cache
def cluster() -> Cluster:
    return Cluster()
