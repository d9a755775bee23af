"""The servers of a cluster, and which of them holds a slot.

It owns the map of slots and when that is asked for anew: at opening, and whenever a server fails
or sends us on. An old map stays until there is a new one; the servers say where it is wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import anyio
from coredis.connection import TCPLocation

from minisession.errors import StoreUnavailable

from .errors import NotSent
from .home import Home
from .keys import slot
from .link import Command, Login, Reply
from .nodes import Node
from .url import Place

REFRESH_PAUSE = 0.2  # seconds from one look at the map to the next, while servers fail

logger = logging.getLogger("minisession.stores")

Address = tuple[str, int]


class Cluster:
    """Knows which server holds which slot."""

    one_holds_all = False

    def __init__(self, home: Home, login: Login, place: Place) -> None:
        self._home = home
        self._login = login
        self._seeds = place.hosts
        self._nodes: dict[Address, Node] = {}
        self._owners: dict[int, Node] = {}
        self._is_looking = False
        self._moved: list[Callable[[], None]] = []

    def node_of(self, key: bytes) -> Node:
        """Return the server that holds a key, for all that is known."""
        node = self._owners.get(slot(key))
        if node is None:
            raise NotSent(f"no server of the cluster holds slot {slot(key)}; nothing was stored")
        return node

    def all(self) -> list[Node]:
        """Return every server that holds slots."""
        return list(dict.fromkeys(self._owners.values()))

    def named(self, host: str, port: int, by: Node) -> Node:
        """Return the server to which another one redirects; no host means its own."""
        own = next(address for address, node in self._nodes.items() if node is by)
        return self._node((host or own[0], port))

    async def open(self) -> None:
        """Learn the map from one of the servers that the URL names."""
        problems = await self._look(self._seeds)
        if not self._owners:
            raise StoreUnavailable(f"no server of the cluster tells its slots: {problems}")

    def suspect(self, node: Node | None, *, said: bool) -> None:  # noqa: ARG002
        """Look at the map anew; ask the server that failed last."""
        if not (self._is_looking or self._home.is_closing):
            self._is_looking = True
            self._home.start(self._look_soon, node)

    async def _look_soon(self, failed: Node | None) -> None:
        try:
            known = [address for address, node in self._nodes.items() if node in self.all()]
            last = [address for address, node in self._nodes.items() if node is failed]
            problems = await self._look(dict.fromkeys([*known, *self._seeds, *last]), last)
            if problems:
                logger.warning("the cluster's slots could not be asked for: %s", problems)
            await anyio.sleep(REFRESH_PAUSE)
        finally:
            self._is_looking = False

    async def _look(self, addresses: Iterable[Address], last: Iterable[Address] = ()) -> str:
        """Ask one server after the other; return why none answered, empty if one did."""
        problems = []
        for address in sorted(addresses, key=lambda address: address in last):
            node = self._node(address)
            (reply,) = await node.reads.ask([Command(b"", (b"CLUSTER SLOTS",))])
            if isinstance(reply, Exception):
                problems.append(f"{node.name}: {reply}")
            elif self._learn(reply, address[0]):
                return ""
            else:
                problems.append(f"{node.name} knows no slots")
        return "; ".join(problems)

    def _learn(self, ranges: Reply, asked: str) -> bool:
        owners = {}
        for first, last, (host, port, *_), *_ in ranges:
            node = self._node(((host or b"").decode() or asked, port))
            owners.update(dict.fromkeys(range(first, last + 1), node))
        if owners and owners != self._owners:
            self._owners = owners
            for act in self._moved:
                act()
        return bool(owners)

    def when_moved(self, act: Callable[[], None]) -> None:
        """Have a function called whenever slots have turned out to be held by other servers."""
        self._moved.append(act)

    def _node(self, address: Address) -> Node:
        node = self._nodes.get(address)
        if node is None:
            location = TCPLocation(*address)

            async def locate() -> TCPLocation:
                return location

            node = Node(self._home, self._login, f"Redis at {location}", locate)
            self._nodes[address] = node
        return node
