"""What can be set about the server. It owns the checks, and knows nothing of sockets or apps."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from .forwarded import TrustedProxies


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerConfig:
    """Where to listen, how long to wait, how much to take; checked when built.

    All times are in seconds, all sizes in bytes. A time-out may fire up to a quarter of itself
    (at most 0.5 s) late, because deadlines are looked at together at intervals.

    Attributes:
        host: name or address to bind to; every address that it resolves to is bound.
        port: 0 lets the system choose; `serve` reports the real one.
        uds: path of a Unix socket to listen on instead; who may connect is decided by the
            permissions of its folder. It is removed in the end.
        fds: descriptors of listening sockets to use instead, which somebody else has bound. They
            become the server's own, which closes them in the end.
        backlog: connections that the kernel keeps waiting for us (uvicorn: 2048, nginx: 511).
        certfile: PEM file with the certificate and its chain: everything is https then.
        keyfile: PEM file with the private key; "" if the certificate's file holds it.
        forwarded_allow_ips: proxies that are believed when they say who sent a request, in
            X-Forwarded-For and -Proto or Forwarded: addresses and networks, separated by commas;
            "unix" for a Unix socket, "*" for whoever connects (uvicorn: 127.0.0.1).
        root_path: the ASGI `root_path`: where the app is mounted, "" or "/prefix".
        keep_alive_timeout: silence between two requests, and before the first (uvicorn: 5).
        head_timeout: absolute time for a request line and its headers, from the first byte.
        body_timeout: silence of a client that owes us a body while the app waits for it; and the
            whole time for what the app has left unread of it.
        write_timeout: time in which a reader takes nothing of a response.
        graceful_timeout: time for running requests, then for the app's shutdown, when stopping.
        max_request_line: longer ones are refused with 414 (RFC 9112 section 3 asks for 8000).
        max_head: request line and headers together; larger ones are refused with 431.
        max_connections: more wait in the kernel, while idle ones are closed to make room.
        max_body: larger bodies are refused with 413 (nginx: 1 MiB, hypercorn: 16 MiB).
        access_log: one line per response on the logger `minisession.server.access`.

    Raises:
        ValueError: a field is not allowed; the message names it, what came and what is allowed.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    uds: str = ""
    fds: tuple[int, ...] = ()
    backlog: int = 1024
    certfile: str = ""
    keyfile: str = ""
    forwarded_allow_ips: str = ""
    root_path: str = ""
    keep_alive_timeout: float = 5.0
    head_timeout: float = 10.0
    body_timeout: float = 30.0
    write_timeout: float = 30.0
    graceful_timeout: float = 30.0
    max_request_line: int = 16 * 1024
    max_head: int = 64 * 1024
    max_connections: int = 20_000
    max_body: int = 64 * 1024 * 1024
    access_log: bool = False

    def __post_init__(self) -> None:
        self._check("host", bool(self.host), "a host name or an address, such as '127.0.0.1'")
        self._check("port", _is_int(self.port) and 0 <= self.port <= 65535, "0 to 65535")
        self._check("root_path", _is_prefix(self.root_path), "'' or a path such as '/app'")
        self._check("fds", all(map(_is_int, self.fds)), "a tuple of file descriptors")
        self._check("keyfile", not self.keyfile or bool(self.certfile), "'' without a certfile")
        try:
            TrustedProxies(self.forwarded_allow_ips)
        except ValueError as error:
            raise ValueError(f"ServerConfig.forwarded_allow_ips: {error}") from None
        for name in (field.name for field in fields(self)):
            if name.endswith("_timeout"):
                self._check(name, _is_seconds(getattr(self, name)), "seconds greater than 0")
            elif name.startswith("max_") or name == "backlog":
                value = getattr(self, name)
                self._check(name, _is_int(value) and value > 0, "an integer greater than 0")
        self._check("backlog", self.backlog < 2**31, "an integer less than 2**31")  # C's int
        line_fits = self.max_request_line < self.max_head
        self._check("max_request_line", line_fits, f"less than max_head ({self.max_head})")

    def _check(self, name: str, is_allowed: bool, allowed: str) -> None:
        if not is_allowed:
            raise ValueError(f"ServerConfig.{name}={getattr(self, name)!r}: allowed is {allowed}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _is_prefix(value: str) -> bool:
    return value == "" or (value.startswith("/") and not value.endswith("/"))
