"""`SessionManager`: everything about sessions that waits.

It opens sessions, hands their changes to the store and their outcomes back, and keeps the store
tidy. What a change is and what an outcome means is decided in `_core`; the manager owns the
waiting: deadlines, shields, one commit per session at a time, and two background tasks.

    flusher   hands over, at the next tick, what was written (P5)
    sweeper   removes expired sessions from the store, in small batches

All mutable state: `_unflushed` (ledgers with something for the flusher), `_touches` (at most one
per handle), `_turns` (who is next to update a key). Both tasks live only while the manager is
entered; without them the saves at the response and at the end of an exchange do their work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from threading import get_ident
from types import TracebackType
from typing import Any, Final, Self

import anyio
from anyio.abc import TaskGroup

from minisession._codec import decode
from minisession._context import bound
from minisession._core.journal import Kind, Life
from minisession._core.ledger import Candidates, Ledger, State
from minisession._core.plan import Flight
from minisession._core.rules import Standing, standing
from minisession._core.session import Session
from minisession._core.settle import settle
from minisession._ids import hash_secret, is_handle, split_id
from minisession._loop import current_loop
from minisession.abc import (
    Change,
    Committed,
    Destroy,
    LoadsNowait,
    Outcome,
    Record,
    Store,
    Touch,
    Withdraws,
)
from minisession.config import SessionConfig
from minisession.errors import (
    Conflict,
    SaveOutcomeUnknown,
    SaveTimeout,
    SessionGone,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
    UsageError,
)
from minisession.stores import open_store

log = logging.getLogger("minisession")

UPDATE_TRIES: Final = 100
"""How often `update` runs again. Racers of one process queue, so only other processes can win
against it, and each of their wins is progress: a hundred in a row is a live-lock, not bad luck."""

SWEEP_EVERY: Final = 60.0  # seconds; an expired session is refused at once, this is only room
SWEEP_BATCH: Final = 500  # sessions; a batch holds the writer for some milliseconds
SWEEP_PAUSE: Final = 0.05  # seconds between batches, which others' commits can use

_LOADS: Final = (Standing.CURRENT, Standing.BORROWED)

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
        self.loads_nowait = isinstance(self.store, LoadsNowait)
        self._unflushed: dict[int, Ledger] = {}
        self._touches: dict[str, Touch] = {}
        self._turns: dict[tuple[str | int, str], _Turn] = {}
        self._flusher = _Alarm()
        self._stack: AsyncExitStack | None = None

    def __repr__(self) -> str:
        state = "idle" if self._stack is None else "running"
        return f"<SessionManager {state} store={self.store!r}>"

    # --- its own life --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise UsageError(
                "this SessionManager is entered already; make one for each `async with`"
            )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.store)
            tasks = await stack.enter_async_context(_unwrapped_task_group())
            stack.push_async_callback(self._stop, tasks)
            self._flusher.arm()
            tasks.start_soon(self._flush_forever)
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

    async def _stop(self, tasks: TaskGroup) -> None:
        """Store what is left, then end the background tasks."""
        self._flusher.disarm()
        tasks.cancel_scope.cancel()
        await self._flush()

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
        async with self._lease(self.ledger(lambda: candidates)) as session:
            yield session

    @asynccontextmanager
    async def open_handle(self, handle: str) -> AsyncIterator[Session]:
        """Bind the session with this handle for the block; otherwise like `open`.

        For jobs and administration: a handle authenticates nobody, and `session.id` stays None.

        Raises:
            SessionGone: no such session lives.
        """
        record = await self._load(handle, self.clock()) if is_handle(handle) else None
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
            if not self.loads_nowait:
                await self.read(ledger)
            with bound(session):
                yield session
        except BaseException:
            await self.rescue(ledger)
            raise
        else:
            await self.finish(ledger, issuing=True)
            if ledger.lost_writes:
                raise _gone(ledger)
        finally:
            await self.touch(ledger)
            ledger.close()

    def ledger(self, candidates: Candidates = tuple, *, excluded: bool = False) -> Ledger:
        """Return the ledger of a new exchange, which loads one of `candidates` when touched."""
        return Ledger(self, self.config, candidates, excluded=excluded)

    # --- loading -------------------------------------------------------------------------------

    def read_nowait(self, ledger: Ledger) -> None:
        """Load a session at its first touch, from a store that can do so without waiting."""
        now, candidates = self.clock(), ledger.candidates()
        answers = [self._try_nowait(handle, now) for handle, _ in candidates]
        self._choose(ledger, candidates, answers, now)

    async def read(self, ledger: Ledger) -> None:
        """Load a session before it is touched, if the request names one."""
        if ledger.state is State.UNREAD:
            now, candidates = self.clock(), ledger.candidates()
            answers = [await self._try(handle, now) for handle, _ in candidates]
            self._choose(ledger, candidates, answers, now)

    def _try_nowait(self, handle: str, now: float) -> Record | StoreError | None:
        assert isinstance(self.store, LoadsNowait), "others are read before the app runs"  # noqa: S101
        try:
            return self.store.load_nowait(handle, now)
        except StoreError as error:
            return error

    async def _try(self, handle: str, now: float) -> Record | StoreError | None:
        try:
            return await self._load(handle, now)
        except StoreError as error:
            return error

    async def _load(self, handle: str, now: float) -> Record | None:
        if isinstance(self.store, LoadsNowait):
            return self.store.load_nowait(handle, now)
        try:
            with anyio.fail_after(self.config.save_timeout):
                return await self.store.load(handle, now)
        except TimeoutError as error:
            raise StoreUnavailable(
                f"the store did not load a session within {self.config.save_timeout:g} s"
                " (SessionConfig.save_timeout)"
            ) from error

    def _choose(
        self,
        ledger: Ledger,
        candidates: Sequence[tuple[str, str]],
        answers: Sequence[Record | StoreError | None],
        now: float,
    ) -> None:
        """Give the ledger the first candidate that lives; what else was presented is reported.

        A damaged record counts as an unknown id: it stays as it is, for somebody to look at.
        """
        stale: str | None = None
        for (handle, secret), answer in zip(candidates, answers, strict=True):
            if isinstance(answer, StoreError) and not isinstance(answer, StoreCorrupt):
                ledger.fail(answer)
                return
            try:
                verdict = _adopt(ledger, answer, secret, now)
            except StoreCorrupt:
                log.exception("session %s is damaged, counts as unknown and stays as it is", handle)
                continue
            if verdict in _LOADS:
                return
            if verdict is Standing.STALE:
                stale = stale or handle
            elif verdict is not None:
                log.warning("session %s: a %s secret was presented", handle, verdict.value)
        if stale is not None:
            ledger.adopt_stale(stale)
        elif candidates and not self.config.use_strict_mode:
            ledger.adopt_nothing(candidates[0])
        else:
            ledger.adopt_nothing()

    async def refresh(self, ledger: Ledger) -> None:
        """Read a session again; see `Session.refresh`."""
        ledger.require_ready()
        ledger.look()
        await self._quiet(ledger)
        life = ledger.life
        if ledger.state is State.VOID:
            raise _gone(ledger)
        if life is None or not life.stored:
            return
        record = await self._read_again(ledger, life.handle)
        ledger.require_ready()
        if ledger.life is not life:
            return
        for secret in ledger.stored_secrets:
            if _adopt(ledger, record, secret, self.clock()) in _LOADS:
                return
        if record is None and ledger.doubt is not None and ledger.doubt.kind is Kind.CREATE:
            ledger.adopt_nothing()  # it was never created
            return
        ledger.void(life)
        raise _gone(ledger)

    async def _read_again(self, ledger: Ledger, handle: str) -> Record | None:
        """Load a session of which nothing is stored meanwhile, so that the answer is no old one."""
        pause = ledger.pause()
        try:
            return await self._load(handle, self.clock())
        finally:
            self._land(ledger, pause, ())

    # --- saving --------------------------------------------------------------------------------

    def wrote(self, ledger: Ledger) -> None:
        """Take notice of a write: the flusher hands it over at the next tick."""
        if ledger.state is State.VOID:
            self.report_void(ledger)
        elif ledger.flushable and self.config.on_error == "commit" and self._flusher.armed:
            self._unflushed[id(ledger)] = ledger
            self._flusher.ring()

    def report_void(self, ledger: Ledger) -> None:
        """Log, once per exchange, that its writes are void."""
        if not ledger.lost_writes:
            ledger.lost_writes = True
            log.info("%s: it has ended or moved on; writes of this request are void", ledger)

    async def save(self, ledger: Ledger) -> None:
        """Wait until the store has everything; see `Session.save`."""
        await self.settle_up(ledger, issuing=True)
        if ledger.state is State.VOID:
            raise _gone(ledger)

    async def settle_up(self, ledger: Ledger, *, issuing: bool) -> None:
        """Wait for the commit in flight and one more of the journal as it is now.

        A session that is found gone is no error here: its writes came before its end.

        Args:
            ledger: the session.
            issuing: hand over also what issues an id: an answer is at hand to carry it.
        """
        if ledger.state in (State.CLOSED, State.EXCLUDED):
            ledger.require_ready()
        ledger.look()
        awaited = await self._quiet(ledger)
        refused = ledger.refused if awaited is None else awaited.refused or ledger.refused
        if refused is None:
            flight = ledger.take(self.clock(), issuing=issuing)
            if flight is not None:
                await self._commit([(ledger, flight)])
                refused = flight.error
        ledger.refused = None
        if refused is not None:
            raise refused.with_traceback(None)
        if ledger.state is State.UNKNOWN:
            raise ledger.unknown()

    async def finish(self, ledger: Ledger, *, issuing: bool) -> None:
        """Settle up for the last time: a value that is refused costs the others nothing."""
        try:
            await self.settle_up(ledger, issuing=issuing)
        except UsageError:
            await self.rescue(ledger)
            raise

    async def _quiet(self, ledger: Ledger) -> Flight | None:
        """Wait until nothing of this session is in flight; each flight has a deadline.

        Returns the last flight that was waited for: it may have carried writes of this task.
        """
        awaited = None
        while (flight := ledger.flight) is not None:
            if flight.done is None:
                flight.done = anyio.Event()
            with anyio.CancelScope(shield=True):
                await flight.done.wait()
            awaited = flight
        return awaited

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

    async def touch(self, ledger: Ledger) -> None:
        """Renew the idle timeout of a session that was read, if that is due."""
        touch = ledger.touch(self.clock())
        if touch is None:
            return
        self._touches[touch.handle] = touch
        if self._flusher.armed:
            self._flusher.ring()
        else:
            await self._flush()

    async def revoke(self, handle: str) -> bool:
        """End a session from outside: "log out that device". Tell whether it lived.

        Raises:
            StoreError: it could not be ended, or nobody knows whether it was.
        """
        [outcome] = await self._ask([Destroy(handle, None)])
        if isinstance(outcome, Exception):
            raise outcome
        return isinstance(outcome, Committed)

    async def _commit(
        self, flights: Sequence[tuple[Ledger, Flight]], touches: Sequence[Touch] = ()
    ) -> None:
        """Give flights to the store and their outcomes to the ledgers, whatever happens.

        The changes reach the store before the first suspension, and every flight lands: losing
        the wait, by a deadline or a cancellation that ignores shields, only loses the answer.
        """
        changes = [leg.change for _, flight in flights for leg in flight.legs]
        outcomes: Sequence[Outcome] = [_no_answer()] * len(changes)
        try:
            outcomes = await self._ask([*changes, *touches])
        finally:
            answers = iter(outcomes)
            for ledger, flight in flights:
                self._land(ledger, flight, [next(answers) for _ in flight.legs])

    def _land(self, ledger: Ledger, flight: Flight, outcomes: Sequence[Outcome]) -> None:
        """Note a flight's answers, wake who waits for them, and hand over what came meanwhile."""
        settle(ledger, flight, outcomes)
        if flight.done is not None:
            flight.done.set()
        if flight.error is None:  # else it waits for the next save, or would spin
            self.wrote(ledger)

    async def _ask(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Commit, shielded and with a deadline; a failure of the store is everyone's outcome."""
        deadline = anyio.current_time() + self.config.save_timeout
        try:
            with anyio.CancelScope(shield=True, deadline=deadline):
                outcomes = await self.store.commit(changes, self.clock())
                return outcomes if len(outcomes) == len(changes) else [_no_answer()] * len(changes)
        except StoreError as error:
            return [error] * len(changes)
        except Exception:  # a store that breaks the contract must not end the flusher for all
            log.exception("%r failed with something else than a StoreError", self.store)
            return [_no_answer()] * len(changes)
        return [self._withdraw(change) for change in changes]

    def _withdraw(self, change: Change) -> StoreError:
        if isinstance(self.store, Withdraws) and self.store.withdraw(change):
            return SaveTimeout(
                f"session {change.handle}: the store did not take a change within"
                f" {self.config.save_timeout:g} s (SessionConfig.save_timeout); it is not stored"
            )
        return _no_answer()

    # --- update --------------------------------------------------------------------------------

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
                raise _gone(ledger)
            if flight.error is not None:
                raise flight.error
            turn.latest = ledger.stored.get(key)
            return value

    async def _propose(
        self, ledger: Ledger, life: Life, key: str, expected: bytes | None, value: Any
    ) -> Flight:
        await self._quiet(ledger)
        if ledger.life is not life:
            raise _gone(ledger)
        flight = ledger.propose(key, expected, value, self.clock())
        await self._commit([(ledger, flight)])
        return flight

    @asynccontextmanager
    async def _turn(self, ledger: Ledger, key: str) -> AsyncIterator[_Turn]:
        """Queue for one key of one session, so that racers of this process do not conflict."""
        name = (id(ledger) if ledger.life is None else ledger.life.handle, key)
        turn = self._turns.setdefault(name, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield turn
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[name]

    # --- background tasks ----------------------------------------------------------------------

    async def _flush_forever(self) -> None:
        while True:
            await self._flusher.wait()
            await self._flush()

    async def _flush(self) -> None:
        """Hand over, as one batch, what was written and touched since the last time."""
        now = self.clock()
        flights = []
        while self._unflushed:
            _, ledger = self._unflushed.popitem()
            flight = ledger.take(now, issuing=False)
            if flight is not None:
                flights.append((ledger, flight))
        touches, self._touches = list(self._touches.values()), {}
        if flights or touches:
            await self._commit(flights, touches)

    async def _sweep_forever(self) -> None:
        pause = SWEEP_EVERY
        while True:
            await anyio.sleep(pause)
            try:
                removed = await self.store.purge(self.clock(), SWEEP_BATCH)
            except StoreError:
                log.exception("expired sessions could not be removed; trying again later")
                removed = 0
            pause = SWEEP_PAUSE if removed == SWEEP_BATCH else SWEEP_EVERY


@asynccontextmanager
async def _unwrapped_task_group() -> AsyncIterator[TaskGroup]:
    """Open a task group that lets an exception of its own block out as it is, not in a group."""
    own: BaseException | None = None
    try:
        async with anyio.create_task_group() as tasks:
            try:
                yield tasks
            except BaseException as error:
                own = error
                raise
    except BaseExceptionGroup as group:
        if own is None or group.exceptions != (own,):
            raise
    if own is not None:
        raise own


class _Turn:
    """The queue for one key, and what the last one in it has stored."""

    __slots__ = ("latest", "lock", "users")

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.users = 0
        self.latest: Any = _NOBODY


class _Alarm:
    """Wakes one waiting task, from any thread; rings before the wait are not lost."""

    def __init__(self) -> None:
        self.armed = False
        self._rung = False

    def arm(self) -> None:
        """Let rings wake tasks of the running loop from now on."""
        self._thread = get_ident()
        self._call_soon = current_loop()
        self._event = anyio.Event()
        self._rung = False
        self.armed = True

    def disarm(self) -> None:
        """Let nobody ring any more."""
        self.armed = False

    def ring(self) -> None:
        """Wake the task that waits, or the next that will."""
        if self._rung:
            return
        self._rung = True
        if get_ident() == self._thread:
            self._event.set()
        else:
            self._call_soon(self._event.set)

    async def wait(self) -> None:
        """Wait for a ring since the last wait."""
        await self._event.wait()
        self._event = anyio.Event()
        self._rung = False


def _adopt(
    ledger: Ledger, answer: Record | StoreError | None, secret: str | None, now: float
) -> Standing | None:
    """Adopt a record if the secret is good for it; tell what the secret is worth.

    None is no secret: the session was opened by its handle, and belongs to who did so.
    """
    if isinstance(answer, StoreError):
        raise answer
    if answer is None:
        return None
    verdict = Standing.CURRENT if secret is None else standing(answer, hash_secret(secret), now)
    if verdict in _LOADS:
        ledger.adopt(answer, secret, borrowed=verdict is Standing.BORROWED)
    return verdict


def _no_answer() -> SaveOutcomeUnknown:
    return SaveOutcomeUnknown("the store took a change and did not say what became of it")


def _gone(ledger: Ledger) -> SessionGone:
    return SessionGone(f"{ledger}: it was destroyed, revoked or replaced, or has expired")
