"""Loading and listing: whatever only looks.

It owns which commands a question takes. What the indexes and scans of the server find is asked for
again, session by session, and what has expired by the asker's clock is left out. What cannot be
read is no session to a list, which logs it; `alive` counts it, and `verify` looks for it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from heapq import nsmallest
from itertools import islice
from typing import Any, TypeVar

from minisession.abc import Inspection, Record, Summary
from minisession.errors import StoreCorrupt, StoreError

from . import wire
from .courier import Courier
from .keys import Keys
from .link import Command, Reply
from .nodes import Nodes

AT_ONCE = 1000  # keys in one step of a scan, and commands in one pipeline

T = TypeVar("T")
Fields = Mapping[bytes, bytes]

logger = logging.getLogger("minisession.stores")


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
        return wire.record_of(handle, _fields_of(handle, reply), now)

    async def alive(self, handles: Collection[str], now: float) -> set[str]:
        """Return those of `handles` whose sessions live. What cannot be read has not ended."""
        heads = await self._heads(handles, now)
        return {handle for handle, head in heads if head is not None}

    async def of_principal(self, principal: str, now: float) -> list[Summary]:
        """Return the living sessions that belong to `principal`, oldest first."""
        key = self._keys.index(principal)
        (reply,) = await self._courier.read([Command(key, (b"ZRANGE", key, b"0", b"-1"))])
        if isinstance(reply, StoreCorrupt):
            raise wire.no_index(key)
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

    def inspect(self) -> Inspection:
        """Return what is known without asking; the server removes by itself what has expired."""
        return Inspection(f"Redis, format {wire.VERSION.decode()}", expired=0)

    async def verify(self) -> list[str]:
        """Return a sentence for each session whose head is damaged, and each index that is none.

        It looks at every key of every server, and reads no items.
        """
        finds = [*await self._damaged_sessions(), *await self._broken_indexes()]
        return list(dict.fromkeys(map(str, finds)))  # a scan may meet a key twice

    async def _damaged_sessions(self) -> list[StoreCorrupt]:
        found: list[StoreCorrupt] = []
        async for keys in self._scanned(self._keys.sessions):
            handles = map(self._keys.handle, keys)
            heads = await self._looked_at(handles, wire.HEAD, _record)
            found += [head for _, head in heads if isinstance(head, StoreCorrupt)]
        return found

    async def _broken_indexes(self) -> list[StoreCorrupt]:
        found: list[StoreCorrupt] = []
        async for keys in self._scanned(self._keys.indexes):
            names = [key.encode() for key in keys]
            kinds = await self._courier.read([Command(name, (b"TYPE", name)) for name in names])
            for name, kind in zip(names, map(_answered, kinds), strict=True):
                if kind not in (b"zset", b"none"):
                    found.append(wire.no_index(name))
        return found

    async def _first(self, after: str, limit: int) -> list[str]:
        """Return the first handles that are greater than `after`, in order."""
        first: set[str] = set()
        beyond = "\U0010ffff"  # greater than every handle, until there are enough smaller ones
        async for keys in self._scanned(self._keys.sessions):
            handles = map(self._keys.handle, keys)
            first.update(handle for handle in handles if after < handle < beyond)
            if len(first) > limit + AT_ONCE:
                beyond = max(first := set(nsmallest(limit + 1, first)))
        return nsmallest(limit, first)

    async def _scanned(self, pattern: str) -> AsyncIterator[list[str]]:
        """Yield the keys of all servers that match, some of them several times."""
        words = (b"MATCH", pattern.encode(), b"COUNT", b"%d" % AT_ONCE)
        for node in self._nodes.all():
            cursor = b"0"
            while True:
                reply = await self._courier.read_from(node, (b"SCAN", cursor, *words))
                cursor, keys = _answered(reply)
                yield _texts(keys)
                if cursor == b"0":
                    break

    async def _summaries(self, handles: Iterable[str], now: float) -> list[Summary]:
        """Return the living ones, in the same order. What is damaged is left out, and logged."""
        found = []
        for _, head in await self._heads(handles, now):
            if isinstance(head, StoreCorrupt):
                logger.warning("left out of a list: %s", head)
            elif head is not None:
                found.append(head)
        return found

    async def _heads(
        self, handles: Iterable[str], now: float
    ) -> list[tuple[str, Summary | StoreCorrupt | None]]:
        def summary(handle: str, fields: Fields) -> Summary | None:
            return wire.summary_of(handle, fields, now)

        return await self._looked_at(handles, wire.SUMMARY, summary)

    async def _looked_at(
        self, handles: Iterable[str], names: Sequence[bytes], judge: Callable[[str, Fields], T]
    ) -> list[tuple[str, T | StoreCorrupt]]:
        """Return each handle with what `judge` makes of these fields, or why it cannot."""
        left = iter(handles)
        found: list[tuple[str, T | StoreCorrupt]] = []
        while some := list(islice(left, AT_ONCE)):
            for handle, reply in zip(some, await self._fields(some, names), strict=True):
                try:
                    found.append((handle, judge(handle, _fields_of(handle, reply))))
                except StoreCorrupt as error:
                    found.append((handle, error))
        return found

    async def _fields(self, handles: Sequence[str], names: Sequence[bytes]) -> list[Reply]:
        """Return those of these fields that each session has.

        One that has none of them is gone, or so damaged that only a look at the whole tells.
        """
        replies = await self._ask(handles, b"HMGET", *names)
        found = [_named(names, reply) if isinstance(reply, list) else reply for reply in replies]
        bare = [place for place, fields in enumerate(found) if fields == {}]
        wholes = await self._ask([handles[place] for place in bare], b"HGETALL")
        for place, whole in zip(bare, wholes, strict=True):
            found[place] = whole
        return found

    async def _ask(self, handles: Iterable[str], command: bytes, *names: bytes) -> list[Reply]:
        keys = map(self._keys.session, handles)
        return await self._courier.read([Command(key, (command, key, *names)) for key in keys])


def _record(handle: str, fields: Fields) -> Record | None:
    return wire.record_of(handle, fields, now=0.0)


def _named(names: Sequence[bytes], values: Sequence[Any]) -> Fields:
    pairs = zip(names, values, strict=True)
    return {name: value for name, value in pairs if value is not None}


def _fields_of(handle: str, reply: Reply) -> Fields:
    """Return the fields that came.

    Raises:
        StoreCorrupt: there is something that has none.
        StoreUnavailable: no server could be asked.
    """
    if isinstance(reply, StoreCorrupt):
        raise wire.damaged(handle, str(reply))
    fields: Fields = _answered(reply)
    return fields


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
