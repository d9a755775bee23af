"""`RedisStore`: sessions on a Redis or Valkey server, for any number of processes and machines.

It says what is promised and owns nothing else: connections, queues and the script that applies a
change are in `_redis`. The client library is imported when a store is opened.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack, ExitStack
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Self

from minisession.abc import Change, Inspection, Outcome, Record, Summary
from minisession.errors import ConfigError, StoreUnavailable

from ._redis.url import parse

if TYPE_CHECKING:
    from ._redis.opened import Opened

__all__ = ["RedisStore"]


class RedisStore:
    """Keeps sessions on one server, on the primary that Sentinel names, or in a cluster.

    What survives is decided by the server. A crash of the application loses nothing that was
    acknowledged. With the server's defaults (snapshots, no `appendonly`) a crash of the *server*
    loses the changes since the last snapshot, ends of sessions included; with `appendonly yes` up
    to a second of them, with `appendfsync always` none. At a failover the replica that takes over
    may lack the last acknowledged changes, unless `wait` or `waitaof` asks for its confirmation.

    It needs a task of its own, so it works only between `async with store:` and its end, in the
    event loop of that; the middleware does this in the ASGI lifespan. Opening connects: a server
    that is not there, or refuses us, is reported then. Lost connections are made again.

    What cannot be read is `StoreCorrupt` for whoever loads or changes it, and is left as it is;
    only a `Destroy` with epoch None (revocation) removes it. Lists leave it out and log it; `alive`
    counts it, because nobody has ended it.

    Args:
        url: of the server or servers:

            redis://user:password@host:6379/0
            redis+sentinel://host1:26379,host2:26379/service/0
            redis+cluster://host1:6379,host2:6379

            `rediss` is TLS, `valkey` the same as `redis`. Options after a `?`: `prefix` of all
            keys, `wait` (how many replicas must have a change before it is acknowledged),
            `waitaof` (the same for disks: `1` the server's own, `1,1` and one replica's), `cafile`
            (who signed the server's certificate).
    """

    def __init__(self, url: str) -> None:
        self._place = parse(url)
        if find_spec("coredis") is None:
            raise ConfigError(
                "RedisStore needs the client library coredis: pip install 'minisession[redis]'"
            )
        self._opened: Opened | None = None
        self._stack: AsyncExitStack | None = None

    def __repr__(self) -> str:
        return f"<RedisStore {self._place}>"

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise StoreUnavailable(
                f"{self!r} is open already; make one for each `async with`, or share this one"
            )
        # Only now: it takes a second, which a program that never opens a store need not wait.
        from ._redis.opened import Opened  # noqa: PLC0415

        with ExitStack() as unopened:
            unopened.callback(setattr, self, "_stack", None)
            self._stack = AsyncExitStack()  # before the first wait: who comes meanwhile is refused
            self._opened = await self._stack.enter_async_context(Opened.at(self._place))
            unopened.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stack, self._stack, self._opened = self._stack, None, None
        if stack is not None:
            await stack.__aexit__(exc_type, exc, traceback)

    @property
    def _open(self) -> Opened:
        """What an open store works with.

        Raises:
            StoreUnavailable: it is not open, or in another event loop.
        """
        if self._opened is None:
            raise StoreUnavailable(
                f"{self!r} is not open, and it needs a task of its own. Run the application with"
                " its ASGI lifespan on, or open it yourself: `async with SessionManager(store):`"
                " or `async with store:`"
            )
        self._opened.require_own_loop()
        return self._opened

    async def load(self, handle: str, now: float) -> Record | None:
        """Return the living session; one round trip.

        Raises:
            StoreCorrupt: it is there and cannot be read.
            StoreUnavailable: no server could be asked; says why and what to do.
        """
        return await self._open.reader.load(handle, now)

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        """Hand the changes to the store's task, at once, and wait until they are stored.

        Who is cancelled while waiting leaves them to that task, which stores them. One round trip
        for all that has come together; in a cluster one more where a principal is set.

        Raises:
            StoreUnavailable: the store is not open. Otherwise each change has its own outcome.
        """
        return await self._open.lanes.do(changes, now)

    def withdraw(self, change: Change) -> bool:
        """Take back a change that is not on its way yet."""
        return self._opened is not None and self._opened.lanes.withdraw(change)

    async def scan(self, now: float, *, after: str = "", limit: int = 1000) -> list[Summary]:
        """Return living sessions with handles greater than `after`, ordered by handle.

        A server has no order of keys: each call looks at all keys of all servers, also those of
        others, in steps of a thousand: some seconds for a million.
        """
        return await self._open.reader.scan(now, after, limit)

    async def of_principal(self, principal: str, now: float) -> list[Summary]:
        """Return the living sessions that belong to `principal`, oldest first."""
        return await self._open.reader.of_principal(principal, now)

    async def alive(self, handles: Collection[str], now: float) -> set[str]:
        """Return those of `handles` whose sessions live, or cannot be read."""
        return await self._open.reader.alive(handles, now)

    async def purge(self, now: float, limit: int) -> int:  # noqa: ARG002
        """Return 0: the server removes what has expired by itself."""
        return 0

    def is_there(self) -> bool:
        """Return True: whether a server is there, opening tells."""
        return True

    async def inspect(self, now: float) -> Inspection:  # noqa: ARG002
        """Return what is known of a server without looking at every key: nothing waits there."""
        return self._open.reader.inspect()

    async def verify(self) -> list[str]:
        """Look for damage that lists leave out, which looks at all keys of all servers."""
        return await self._open.reader.verify()
