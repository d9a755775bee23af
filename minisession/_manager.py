"""`SessionManager`: opens sessions from one store, for a middleware or for anybody else.

It puts the parts together that wait: the loader, the committer and two background tasks. What a
session is and what may become of it is decided in `_core`.

    flusher   in the committer: hands over, at the next tick, what was written (P5)
    sweeper   removes expired sessions from the store, in small batches

Both live only while the manager is entered; without them the saves at the response and at the end
of an exchange do their work. All mutable state of its own: `_stack` (what leaving it must
close), `_turns` (who is next to update a key), `_swept` (when the store was last swept) and
`_backlog` (until what time expired sessions are being removed, batch by batch; None: all are).
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from threading import get_ident
from types import TracebackType
from typing import Any, Final, Self

import anyio
from anyio.abc import TaskGroup

from minisession._codec import decode
from minisession._committer import Committer
from minisession._context import bound
from minisession._core.books import Candidates, State
from minisession._core.change import Committed, Destroy
from minisession._core.journal import Life
from minisession._core.ledger import Ledger
from minisession._core.plan import Flight
from minisession._core.session import Session
from minisession._ids import is_handle, split_id
from minisession._loader import Loader, gone
from minisession.abc import Store
from minisession.config import SessionConfig
from minisession.errors import Conflict, SessionGone, StoreError, UsageError
from minisession.stores import open_store

log = logging.getLogger("minisession")

UPDATE_TRIES: Final = 100
"""How often `update` runs again. Racers of one process queue, so only other processes can win
against it, and each of their wins is progress: a hundred in a row is a live-lock, not bad luck."""

SWEEP_EVERY: Final = 60.0  # seconds; an expired session is refused at once, this is only room
SWEEP_BATCH: Final = 200  # sessions; SQLite's writer takes some 5 ms, as for one of its own
SWEEP_PAUSE: Final = 0.02  # seconds between batches, which others' commits can use
SWEEP_TIMEOUT: Final = 30.0  # seconds for one batch

_NOBODY: Any = object()


class SessionManager:
    """Opens sessions from one store, outside HTTP or under a middleware.

        async with SessionManager("sqlite:///sessions.db") as sessions:
            async with sessions.open(id) as session:
                session["count"] = session.get("count", 0) + 1

    Entering it opens the store and starts its background tasks in this task's care; leaving it
    saves what is left and closes the store. Constructing it does no I/O.

    Args:
        store: a URL such as "memory://" or "sqlite:///sessions.db", or a `Store`.
        config: the configuration; None for the defaults.
        clock: returns the time in seconds since the epoch. For tests.
    """

    def __init__(
        self,
        store: Store | str,
        config: SessionConfig | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = open_store(store)
        self.config = SessionConfig() if config is None else config
        self.clock = clock
        self._loader = Loader(self.store, self.config, clock)
        self._committer = Committer(self.store, self.config, clock, self._loader)
        self._turns: dict[tuple[int, str | int, str], _Turn] = {}
        self._swept = clock()
        self._backlog: float | None = None
        self._stack: AsyncExitStack | None = None

    def __repr__(self) -> str:
        state = "running" if self.is_running else "idle"
        return f"<SessionManager {state} store={self.store!r}>"

    # --- its own life --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self.is_running:
            raise UsageError(
                "this SessionManager is entered already; make one for each `async with`"
            )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.store)
            stack.push_async_callback(self._committer.drain)
            tasks = await stack.enter_async_context(_unwrapped_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            await stack.enter_async_context(self._committer.run(tasks))
            tasks.start_soon(self._sweep_forever)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.__aexit__(exc_type, exc, traceback)

    @property
    def is_running(self) -> bool:
        """Whether somebody has entered it, so that its background tasks run."""
        return self._stack is not None

    # --- opening -------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self, id: str | None = None) -> AsyncIterator[Session]:
        """Bind the session with this id for the block; save at its end, then close the object.

        Without an id, or with one that the store does not know, the session is empty and starts
        at its first write; send `session.id` to the client after `await session.save()`.

        Raises:
            SessionGone: at the end of the block, if the session ended before its writes.
            StoreError: the session could not be loaded, or not be saved at the end.
        """
        candidate = None if id is None else split_id(id)
        candidates = () if candidate is None else (candidate,)
        ledger = self.ledger(lambda: candidates)
        await self.load(ledger)
        async with self._lease(ledger) as session:
            yield session

    @asynccontextmanager
    async def open_handle(self, handle: str) -> AsyncIterator[Session]:
        """Bind the session with this handle for the block; otherwise like `open`.

        For jobs and administration: a handle authenticates nobody, `session.id` stays None, and
        the session cannot be given another id.

        Raises:
            SessionGone: no such session lives.
        """
        record = await self._loader.load(handle, self.clock()) if is_handle(handle) else None
        if record is None:
            name = repr(handle) if is_handle(handle) else "that was given (an id is none)"
            raise SessionGone(f"no session with the handle {name} lives")
        ledger = self.ledger()
        ledger.adopt(record, None)
        async with self._lease(ledger) as session:
            yield session

    @asynccontextmanager
    async def _lease(self, ledger: Ledger) -> AsyncIterator[Session]:
        session = Session(ledger)
        try:
            with bound(session):
                yield session
        except BaseException:
            await self.fail(ledger)
            raise
        await self.leave(ledger, issuing=True)
        if ledger.lost_writes:
            raise gone(ledger)

    # --- an exchange, step by step: for the middleware -----------------------------------------

    def ledger(self, candidates: Candidates = tuple, *, excluded: bool = False) -> Ledger:
        """Return the ledger of a new exchange, which loads one of `candidates` when touched."""
        return Ledger(
            self,
            self.config,
            candidates,
            arrived=self.clock(),
            is_flushed=self.config.on_error == "commit" and self._committer.flushes(),
            excluded=excluded,
        )

    async def load(self, ledger: Ledger) -> None:
        """Load the session now, if its store cannot do so at the first touch."""
        if not self._loader.loads_nowait:
            await self._loader.read(ledger)

    async def settle_up(self, ledger: Ledger, *, issuing: bool) -> None:
        """Store what is unsaved; see `Committer.settle_up`."""
        await self._committer.settle_up(ledger, issuing=issuing)

    async def keep_alive(self, ledger: Ledger) -> None:
        """Renew the idle timeout of a session that was used since the last time, if it is due.

        Never delays a response: where nothing flushes, that waits for the end of the exchange.
        """
        if self._committer.flushes():
            await self._committer.touch(ledger)

    async def leave(self, ledger: Ledger, *, issuing: bool) -> None:
        """End an exchange: refuse further use, store what is left, and forget the data."""
        try:
            ledger.shut()
            if ledger.unsaved:
                await self.settle_up(ledger, issuing=issuing)
            if ledger.abandon(everything=False):
                log.warning("a session was started or renewed, and no response could carry its id")
            await self._afterwards(ledger)
        except anyio.get_cancelled_exc_class():
            await self.rescue(ledger)  # asyncio's own kind passed the shields: hand over the rest
            raise
        finally:
            self._committer.let_go(ledger)

    async def fail(self, ledger: Ledger) -> None:
        """End an exchange after an exception, like `leave`, but raise nothing."""
        try:
            ledger.shut()
            await self.rescue(ledger)
            await self._afterwards(ledger)
        finally:
            self._committer.let_go(ledger)

    async def rescue(self, ledger: Ledger) -> None:
        """After an exception: store what was written before it, or drop it, as configured.

        What issues an id is dropped in any case: no answer will carry it. Raises nothing, so
        that the exception that brought us here is the one that is seen.
        """
        if self.config.on_error == "rollback":
            ledger.abandon(everything=True)
        try:
            await self.settle_up(ledger, issuing=False)
        except (StoreError, UsageError):
            log.exception("%s: writes of a failed request could not be stored", ledger)
        if ledger.abandon(everything=False):
            log.info("a session that a failed request had started or renewed was dropped")

    async def _afterwards(self, ledger: Ledger) -> None:
        """Do what may wait until the response has left."""
        await self._committer.touch(ledger)
        if self.is_running:
            return
        away = abs(self.clock() - self._swept)  # a clock that was set back must not stop it
        if away > self._sweep_in:
            await self._sweep()

    # --- what a session asks of its owner ------------------------------------------------------

    def read_nowait(self, ledger: Ledger) -> None:
        """Load a session at its first touch."""
        self._loader.read_nowait(ledger)

    def wrote(self, ledger: Ledger) -> None:
        """Take notice of a write."""
        self._committer.wrote(ledger)

    async def save(self, ledger: Ledger) -> None:
        """Wait until the store has everything; see `Session.save`."""
        await self.settle_up(ledger, issuing=True)
        if ledger.state is State.VOID:
            raise gone(ledger)

    async def refresh(self, ledger: Ledger) -> None:
        """Read a session again; see `Session.refresh`."""
        ledger.require_ready()
        ledger.look()
        await self._committer.quiet(ledger)
        life = ledger.life
        if ledger.state is not State.VOID and (life is None or not life.stored):
            return
        if life is not None and ledger.state is not State.VOID:
            await self._read_again(ledger, life)
        if ledger.state is State.VOID:
            raise gone(ledger)

    async def _read_again(self, ledger: Ledger, life: Life) -> None:
        """Load a session of which nothing is stored meanwhile, so that the answer is no old one."""
        pause = ledger.pause()
        try:
            record = await self._committer.read_behind(life)
        finally:
            self._committer.land(ledger, pause, ())
        ledger.require_ready()
        if ledger.life is life:
            self._committer.readopt(ledger, record)

    async def update(self, ledger: Ledger, key: str, fn: Callable[[Any], Any], default: Any) -> Any:
        """Change one value atomically; see `Session.update`."""
        ledger.require_ready()
        async with self._turn(ledger, key) as turn:
            await self.save(ledger)
            if ledger.life is None:
                value = fn(default)
                ledger.put(key, value)
                await self.save(ledger)
                return value
            life = ledger.life
            expected = ledger.stored.get(key) if turn.latest is _NOBODY else turn.latest
            tries = 0
            while True:
                value = fn(default if expected is None else decode(expected))
                flight = await self._propose(ledger, life, key, expected, value)
                tries += 1
                if not isinstance(flight.error, Conflict) or tries == UPDATE_TRIES:
                    break
                expected = flight.error.current
            if flight.gone:
                raise gone(ledger)
            if flight.error is not None:
                try:
                    raise flight.error
                finally:
                    flight.error = None  # see `Flight.take_error`
            turn.latest = ledger.stored.get(key)
            return value

    async def _propose(
        self, ledger: Ledger, life: Life, key: str, expected: bytes | None, value: Any
    ) -> Flight:
        await self._committer.quiet(ledger)
        if ledger.life is not life:
            raise gone(ledger)
        flight = ledger.propose(key, expected, value, self.clock())
        await self._committer.commit([(ledger, flight)])
        return flight

    @asynccontextmanager
    async def _turn(self, ledger: Ledger, key: str) -> AsyncIterator[_Turn]:
        """Queue for one key of one session, so that racers of this process do not conflict."""
        name = (get_ident(), id(ledger) if ledger.life is None else ledger.life.handle, key)
        turn = self._turns.setdefault(name, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield turn
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[name]

    # --- the rest ------------------------------------------------------------------------------

    async def revoke(self, handle: str) -> bool:
        """End a session from outside: "log out that device". Tell whether it lived.

        What is no handle, names no session; no store is asked.

        Raises:
            StoreError: it could not be ended, or nobody knows whether it was.
        """
        if not is_handle(handle):
            return False
        [outcome] = await self._committer.ask([Destroy(handle, None)])
        if isinstance(outcome, Exception):
            raise outcome
        return isinstance(outcome, Committed)

    async def _sweep_forever(self) -> None:
        while True:
            await anyio.sleep(self._sweep_in)
            await self._sweep()

    @property
    def _sweep_in(self) -> float:
        """Seconds from one sweep to the next."""
        return SWEEP_EVERY if self._backlog is None else SWEEP_PAUSE

    async def _sweep(self) -> None:
        """Remove one batch of expired sessions.

        The batches that follow in quick succession remove what had expired at the first of them:
        with what expires meanwhile, a busy store would never come to an end.
        """
        self._swept = self.clock()
        until = self._swept if self._backlog is None else min(self._backlog, self._swept)
        self._backlog = None
        try:
            with anyio.fail_after(SWEEP_TIMEOUT):
                if await self.store.purge(until, SWEEP_BATCH):
                    self._backlog = until
        except Exception:  # whatever it is: it costs room, and must not end the application
            log.exception("expired sessions could not be removed; trying again later")


@asynccontextmanager
async def _unwrapped_task_group() -> AsyncIterator[TaskGroup]:
    """Open a task group that lets a single exception out as it is, not in a group.

    Mostly it is one of the block. On trio it may be the KeyboardInterrupt that came at the end.
    """
    error: BaseException | None = None
    try:
        async with anyio.create_task_group() as tasks:
            try:
                yield tasks
            except BaseException as own:
                error = own
                raise
    except BaseExceptionGroup as group:
        # Tasks that were cancelled beside it do not count.
        group = group.split(anyio.get_cancelled_exc_class())[1] or group
        if len(group.exceptions) != 1:
            raise
        error = group.exceptions[0]
    if error is not None:
        raise error


class _Turn:
    """The queue for one key, and what the last one in it has stored."""

    __slots__ = ("latest", "lock", "users")

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.users = 0
        self.latest: Any = _NOBODY
