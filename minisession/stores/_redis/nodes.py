"""Who to ask for a key, where one server holds them all: a given one, or Sentinel's primary.

It owns how that server is found, and that it is found anew. A `Node` has two connections: on that
of the commits, `WAIT` may block, and loads need not wait for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio
from coredis.connection import BaseConnection, TCPLocation

from .errors import NotSent, unreadable
from .home import Home
from .link import CONNECT_TIMEOUT, Command, Link, Login, Reply
from .url import Place


class Node:
    """One server that holds sessions."""

    def __init__(
        self,
        home: Home,
        login: Login,
        name: str,
        locate: Callable[[], Awaitable[TCPLocation]],
        check: Callable[[BaseConnection], Awaitable[None]] | None = None,
    ) -> None:
        self.name = name
        self.reads = Link(home, login, name, locate, check, scripts=False)
        self.commits = Link(home, login, name, locate, check)

    def drop(self) -> None:
        """Give up its connections."""
        self.reads.drop()
        self.commits.drop()


class Nodes(Protocol):
    """The servers of a store.

    Attributes:
        one_holds_all: one script can work with any two keys.
    """

    one_holds_all: bool

    def node_of(self, key: bytes) -> Node:
        """Return the server that holds a key.

        Raises:
            NotSent: none does, for all that is known.
        """
        ...

    def all(self) -> list[Node]:
        """Return every server that holds keys."""
        ...

    def named(self, host: str, port: int, by: Node) -> Node:
        """Return the server to which another one redirects."""
        ...

    async def open(self) -> None:
        """Find them.

        Raises:
            StoreUnavailable: none answers.
        """
        ...

    def suspect(self, node: Node | None, *, said: bool) -> None:
        """Look anew: this one failed, or `said` that it is the wrong one. Waits for nothing.

        None where nobody is known to hold a key.
        """
        ...

    def when_moved(self, act: Callable[[], None]) -> None:
        """Have a function called whenever keys have turned out to be held by other servers."""
        ...


class OneNode:
    """A single server, or the primary that Sentinel names for each connection."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.one_holds_all = True

    def node_of(self, key: bytes) -> Node:  # noqa: ARG002
        """Return the one server."""
        return self._node

    def all(self) -> list[Node]:
        """Return the one server."""
        return [self._node]

    def named(self, host: str, port: int, by: Node) -> Node:  # noqa: ARG002
        """Return the one server: it is part of a cluster, which the error will say."""
        return self._node

    async def open(self) -> None:
        """Connect to it, in both ways."""
        for link in (self._node.reads, self._node.commits):
            (reply,) = await link.ask([Command(b"", (b"PING",))])
            if isinstance(reply, Exception):
                raise unreadable(reply, self._node.name)
        # A cluster may have a single server, too. Who is not allowed to ask has an ordinary one.
        (reply,) = await self._node.reads.ask([Command(b"", (b"INFO", b"cluster"))])
        self.one_holds_all = not (isinstance(reply, bytes) and b"cluster_enabled:1" in reply)

    def suspect(self, node: Node | None, *, said: bool) -> None:  # noqa: ARG002
        """Look for it anew with the next command, if it said that it is the wrong one.

        A connection that is lost says nothing about the other one.
        """
        if said:
            self._node.drop()

    def when_moved(self, act: Callable[[], None]) -> None:
        """Do nothing: there is one."""


def single(home: Home, login: Login, place: Place) -> OneNode:
    """Return the one server that a URL names."""
    location = TCPLocation(*place.hosts[0])

    async def locate() -> TCPLocation:
        return location

    return OneNode(Node(home, login, f"Redis at {location.host}:{location.port}", locate))


class Sentinels:
    """The Sentinels of a service, which know its primary.

    They are asked without a password, as it is usual; with TLS if the servers have it.
    """

    def __init__(self, home: Home, login: Login, place: Place) -> None:
        self._service = place.service
        self._asked = [
            Link(home, Login(tls=login.tls), f"Sentinel at {host}:{port}", _fixed(host, port),
                 scripts=False)
            for host, port in place.hosts
        ]  # fmt: skip
        name = f"the primary of {place.service!r}"
        self.node = Node(home, login, name, self._locate, self._require_primary)
        self._last: TCPLocation | None = None

    async def _locate(self) -> TCPLocation:
        """Ask one Sentinel after the other; the one that answered is asked first next time.

        Each has an equal share of the time for connecting, so that the primary has one as well; who
        stays silent is asked last next time.
        """
        share = CONNECT_TIMEOUT / (len(self._asked) + 1)
        words = (b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._service.encode())
        told = []
        for link in list(self._asked):
            reply: Reply = None
            with anyio.move_on_after(share) as limit:
                (reply,) = await link.ask([Command(b"", words)])
            if limit.cancelled_caught:
                self._asked.remove(link)
                self._asked.append(link)
                told.append(f"{link.name} did not answer within {share:.1f} s")
                continue
            match reply:
                case [bytes(host), bytes(port)]:
                    self._asked.remove(link)
                    self._asked.insert(0, link)
                    return self._moved_to(TCPLocation(host.decode(), int(port)))
                case None:
                    told.append(f"{link.name} knows no such service")
                case _:
                    told.append(str(reply))
        raise NotSent(f"no Sentinel names {self.node.name}: {'; '.join(told)}")

    def _moved_to(self, location: TCPLocation) -> TCPLocation:
        """Leave a server that is the primary no more, even where it still answers."""
        if self._last not in (None, location):
            self.node.drop()
        self._last = location
        return location

    async def _require_primary(self, connection: BaseConnection) -> None:
        role = await connection.create_request(b"ROLE")
        if not isinstance(role, list) or role[:1] != [b"master"]:
            raise NotSent(f"{self.node.name} is a replica still; the failover is not over")


def _fixed(host: str, port: int) -> Callable[[], Awaitable[TCPLocation]]:
    async def locate() -> TCPLocation:
        return TCPLocation(host, port)

    return locate


def sentinel(home: Home, login: Login, place: Place) -> OneNode:
    """Return the primary of the service that a URL names."""
    return OneNode(Sentinels(home, login, place).node)
