"""Loading and listing: whatever only looks.

It owns which commands a question takes. What the indexes and scans of the server find is asked for
again, session by session, and what has expired by the asker's clock is left out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import suppress
from heapq import nsmallest
from itertools import islice
from typing import Any

from minisession.abc import Record, Summary
from minisession.errors import StoreCorrupt, StoreError

from . import wire
from .courier import Courier
from .keys import Keys
from .link import Command, Reply
from .nodes import Nodes

AT_ONCE = 1000  # keys in one step of a scan, and commands in one pipeline


class Reader:
    """Answers questions about sessions."""

    def __init__(self, nodes: Nodes, courier: Courier, keys: Keys) -> None:
        self._nodes = nodes
        self._courier = courier
        self._keys = keys

    async def load(self, handle: str, now: float) -> Record | None:
        """Return the living session; one round trip."""
        key = self._keys.session(handle)
        reply = await self._courier.read_one(Command(key, (b"HGETALL", key)))
        if isinstance(reply, StoreCorrupt):
            raise wire.damaged(handle, str(reply))
        return wire.record_of(handle, _answered(reply), now)

    async def alive(self, handles: Collection[str], now: float) -> set[str]:
        """Return those of `handles` whose sessions live."""
        return {summary.handle for summary in await self._summaries(handles, now)}

    async def of_principal(self, principal: str, now: float) -> list[Summary]:
        """Return the living sessions that belong to `principal`, oldest first."""
        key = self._keys.index(principal)
        (reply,) = await self._courier.read([Command(key, (b"ZRANGE", key, b"0", b"-1"))])
        listed = await self._summaries(_texts(_answered(reply)), now)
        theirs = [summary for summary in listed if summary.principal == principal]
        return sorted(theirs, key=lambda summary: (summary.created, summary.handle))

    async def scan(self, now: float, after: str, limit: int) -> list[Summary]:
        """Return living sessions by handle; looks at every key of every server."""
        found: list[Summary] = []
        while len(found) < limit:
            handles = await self._first(after, limit)
            found += await self._summaries(handles, now)
            if len(handles) < limit:
                break
            after = handles[-1]
        return found[:limit]

    async def _first(self, after: str, limit: int) -> list[str]:
        """Return the first handles that are greater than `after`, in order."""
        first: set[str] = set()
        beyond = "\U0010ffff"  # greater than every handle, until there are enough smaller ones
        async for handles in self._scanned():
            first.update(handle for handle in handles if after < handle < beyond)
            if len(first) > limit + AT_ONCE:
                beyond = max(first := set(nsmallest(limit + 1, first)))
        return nsmallest(limit, first)

    async def _scanned(self) -> AsyncIterator[list[str]]:
        """Yield the handles of all servers, some of them several times."""
        words = (b"MATCH", self._keys.sessions.encode(), b"COUNT", b"%d" % AT_ONCE)
        for node in self._nodes.all():
            cursor = b"0"
            while True:
                reply = await self._courier.read_from(node, (b"SCAN", cursor, *words))
                cursor, keys = _answered(reply)
                yield [self._keys.handle(key) for key in _texts(keys)]
                if cursor == b"0":
                    break

    async def _summaries(self, handles: Iterable[str], now: float) -> list[Summary]:
        """Return the living ones, in the same order. What is damaged is left out."""
        left, found = iter(handles), []
        while some := list(islice(left, AT_ONCE)):
            keys = [self._keys.session(handle) for handle in some]
            asked = [Command(key, (b"HMGET", key, *wire.SUMMARY)) for key in keys]
            for handle, reply in zip(some, await self._courier.read(asked), strict=True):
                if not isinstance(reply, StoreCorrupt):
                    found.append(wire.summary_of(handle, _answered(reply), now))
        return [summary for summary in found if summary is not None]


def _texts(names: Iterable[bytes]) -> list[str]:
    """Return what is text; what others have put there need not be."""
    texts = []
    for name in names:
        with suppress(UnicodeDecodeError):
            texts.append(name.decode())
    return texts


def _answered(reply: Reply) -> Any:
    if isinstance(reply, StoreError):
        raise reply
    return reply
