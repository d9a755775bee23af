"""The listening sockets: where a server can be reached, by TCP, in the file system, or inherited.

Owns binding and the removal of what was bound in the file system. Who accepts is `listener.py`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence
from typing import Any, Self

from .config import ServerConfig

# A name such as "localhost" may have addresses of a family that this machine does not use.
_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}

# The port that the system chose for the first address may be taken at the second one.
_MAX_GUESSES = 16

# Host and port; a path and None for a Unix socket (ASGI's `server` has the same form).
Address = tuple[str, int | None]


class Listeners:
    """The listening sockets of one server. Mutable: `sockets`, and the Unix socket's identity.

    A context manager that closes them in the end, and removes a Unix socket that it has made.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._made: os.stat_result | None = None
        self.sockets: list[socket.socket] = []

    def open(self) -> None:
        """Bind and listen: on inherited descriptors, a Unix socket, or an address.

        It may block, to resolve a name. The sockets never do.

        Raises:
            OSError: the host cannot be resolved, or an address cannot be bound.
        """
        config = self._config
        if config.fds:
            self.sockets = [_adopted(fd) for fd in config.fds]
        elif config.uds:
            self.sockets = [_bound_in_file_system(config.uds, config.backlog)]
            self._made = os.stat(config.uds)
        else:
            self.sockets = _bound_to_host(config.host, config.port, config.backlog)

    @property
    def addresses(self) -> list[Address]:
        """Where the sockets can be reached."""
        return [address_of(each) for each in self.sockets]

    def close(self) -> None:
        """Close the sockets; what waits in the kernel is refused."""
        for each in self.sockets:
            each.close()
        if self._made is not None:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(self._made, os.stat(self._config.uds)):
                    os.unlink(self._config.uds)
        self._made = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _adopted(fd: int) -> socket.socket:
    # The descriptor itself, not a copy: the kernel accepts connections as long as there is one.
    adopted = socket.socket(fileno=fd)
    if not adopted.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        adopted.detach()
        raise OSError(errno.EINVAL, f"the descriptor {fd} is no listening socket")
    adopted.setblocking(False)
    adopted.set_inheritable(False)
    return adopted


def _bound_to_host(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Bind every address that the host resolves to, all to the same port."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError:  # a label that is empty or too long for DNS is not even asked for
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None
    resolved = [(family, address) for family, _, _, _, address in dict.fromkeys(found)]
    guesses = 0
    while True:
        try:
            return _bound_to_all(resolved, backlog)
        except OSError as error:
            guesses += 1
            if port or error.errno != errno.EADDRINUSE or guesses == _MAX_GUESSES:
                raise


def _bound_to_all(
    resolved: Sequence[tuple[int, tuple[Any, ...]]], backlog: int
) -> list[socket.socket]:
    """Bind all of them to the port that the first one gets, or none."""
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for family, (address, port, *rest) in resolved:
        chosen = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(_bound(family, (address, chosen, *rest), backlog))
        except OSError as error:
            failure = error
            if error.errno not in _NOT_HERE:
                break
    if failure is not None and (not sockets or failure.errno not in _NOT_HERE):
        for each in sockets:
            each.close()
        raise failure
    return sockets


def _bound(family: int, address: tuple[object, ...], backlog: int) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A server that starts again must not wait for the connections of the one before it.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # "::" must not take the port of "0.0.0.0" with it
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.setblocking(False)
        listening.bind(address)
        listening.listen(backlog)
    except OSError:
        listening.close()
        raise
    return listening


def _bound_in_file_system(path: str, backlog: int) -> socket.socket:
    """Bind a Unix socket; one that a server left behind that is no more makes way."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        if _is_left_behind(path):
            os.unlink(path)
        listening.bind(path)
        # What keeps others out is the folder: a proxy runs as somebody else.
        os.chmod(path, 0o666)  # noqa: S103
        listening.listen(backlog)
    except OSError:
        listening.close()
        raise
    return listening


def _is_left_behind(path: str) -> bool:
    """Whether there is a socket at `path` on which nobody listens."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False  # a file of somebody's: bind() says that the address is in use
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            return probe.connect_ex(path) == errno.ECONNREFUSED
    return False


def address_of(bound: socket.socket) -> Address:
    """Return host and port of a socket, without what IPv6 adds to them; or a path and None."""
    name = bound.getsockname()
    if isinstance(name, str):
        return name, None
    return name[0], name[1]
