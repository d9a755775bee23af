"""`Committer`: hands the changes of sessions to the store, and its answers back.

What a change is and what an answer means is decided in `_core`; here is the waiting for it, with
shields, deadlines and one commit per session at a time. Batching belongs to the store.

All mutable state: `_tasks` (the owner of commits that nobody waits for, while `run` lasts),
`_unflushed` (ledgers with something for the flusher) and `_touches` (at most one per handle and
epoch, with the ledgers that asked for it), both emptied at the next tick.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from copy import copy

import anyio
from anyio.abc import TaskGroup

from minisession._alarm import Alarm
from minisession._core.books import State
from minisession._core.change import Change, Committed, Destroy, Outcome, Touch
from minisession._core.journal import Life
from minisession._core.ledger import Ledger
from minisession._core.plan import Flight, Leg
from minisession._core.settle import settle
from minisession._loader import Loader
from minisession.abc import Record, Store, Withdraws
from minisession.config import SessionConfig
from minisession.errors import (
    MinisessionError,
    SaveOutcomeUnknown,
    SaveTimeout,
    StoreCorrupt,
    StoreError,
    UsageError,
)

log = logging.getLogger("minisession")

Flights = Sequence[tuple[Ledger, Flight]]
Touches = Sequence[tuple[Touch, Sequence[Ledger]]]


class Committer:
    """Commits what ledgers hold; with `run`, also what nobody waits for."""

    def __init__(
        self, store: Store, config: SessionConfig, clock: Callable[[], float], loader: Loader
    ) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._loader = loader
        self._unflushed: dict[int, Ledger] = {}
        self._touches: dict[tuple[str, int], tuple[Touch, list[Ledger]]] = {}
        self._flusher = Alarm()
        self._tasks: TaskGroup | None = None

    # --- the flusher ---------------------------------------------------------------------------

    @asynccontextmanager
    async def run(self, tasks: TaskGroup) -> AsyncIterator[None]:
        """Hand over, at the next tick, what sessions of this loop write (P5).

        `tasks` owns the commits and must have ended before `drain` is called.
        """
        self._flusher.arm()
        self._tasks = tasks
        tasks.start_soon(self._flush_forever, tasks)
        try:
            yield
        finally:
            self._tasks = None

    async def drain(self) -> None:
        """Store what is left of sessions that nobody has ended; then flush no more."""
        try:
            while self._unflushed or self._touches:
                await self.commit(*self._unsaved())
        finally:
            self._flusher.disarm()

    async def _flush_forever(self, tasks: TaskGroup) -> None:
        while True:
            await self._flusher.wait()
            self._flush(tasks)

    def _flush(self, tasks: TaskGroup) -> None:
        flights, touches = self._unsaved()
        if flights or touches:  # else the saves of responses were faster
            # Not awaited: a slow commit of one session must not delay the writes of others.
            tasks.start_soon(self.commit, flights, touches)

    def _unsaved(self) -> tuple[Flights, Touches]:
        """Take, as one batch, what was written and touched since the last time."""
        now = self._clock()
        flights = []
        while self._unflushed:
            _, ledger = self._unflushed.popitem()
            flight = ledger.take(now, issuing=False)
            if flight is not None:
                flights.append((ledger, flight))
        touches, self._touches = list(self._touches.values()), {}
        return flights, touches

    def flushes(self) -> bool:
        """Tell whether the flusher serves the calling task: it runs, and on the same loop."""
        return self._flusher.is_at_home()

    def wrote(self, ledger: Ledger) -> None:
        """Take notice of a write; from any thread."""
        if ledger.state is State.VOID:
            report_void(ledger)
        elif ledger.is_flushed and ledger.flushable:
            self._unflushed[id(ledger)] = ledger
            self._flusher.ring()

    async def touch(self, ledger: Ledger) -> None:
        """Renew the idle timeout of a session that was used, if that is due."""
        touch = ledger.touch(self._clock())
        if touch is None:
            return
        if self.flushes():
            same = self._touches.setdefault((touch.handle, touch.epoch), (touch, []))
            same[1].append(ledger)
            self._flusher.ring()
        else:
            await self.commit((), [(touch, [ledger])])

    # --- one session ---------------------------------------------------------------------------

    async def settle_up(self, ledger: Ledger, *, issuing: bool) -> None:
        """Wait for the commit in flight and one more of the journal as it is now.

        A session that is found gone is no error here: its writes came before its end. What one
        value or one earlier commit was refused for is raised after everything else is stored.

        Args:
            ledger: the session.
            issuing: hand over also what issues an id: an answer is at hand to carry it.
        """
        if ledger.state in (State.CLOSED, State.EXCLUDED):
            ledger.require_ready()
        problem: MinisessionError | None = _look(ledger)
        if problem is not None and self._config.on_error == "rollback":
            try:
                raise problem
            finally:
                del problem
        awaited = await self.quiet(ledger)
        problem = problem or (None if awaited is None else awaited.refused) or ledger.refused
        problem = await self._commit_journal(ledger, issuing=issuing) or problem
        ledger.refused = None
        ledger.doubt_told = ledger.doubt_told or isinstance(problem, SaveOutcomeUnknown)
        try:
            if problem is not None:
                raise problem.with_traceback(None)
        finally:
            del problem, awaited  # a frame that holds what it raises lives on, and all it knows
        if ledger.state is State.UNKNOWN:
            raise ledger.unknown()

    async def _commit_journal(self, ledger: Ledger, *, issuing: bool) -> MinisessionError | None:
        """Commit what the journal holds now; return the error that this met.

        That is one flight, or two if the first ends a life: a session that comes after a
        `destroy()` is not created before the store has ended the one before it.
        """
        for _ in range(2):
            flight = ledger.take(self._clock(), issuing=issuing)
            if flight is None:
                return None
            await self.commit([(ledger, flight)])
            if flight.error is not None or not isinstance(flight.legs[-1].change, Destroy):
                return flight.take_error()
        return None

    async def quiet(self, ledger: Ledger) -> Flight | None:
        """Wait until nothing of this session is in flight.

        Returns the last flight that was waited for: it may have carried writes of this task.
        """
        if ledger.flight is None:
            return None
        awaited = None
        # A flight has a deadline of its own; this one is for a loop that has ended meanwhile.
        deadline = anyio.current_time() + 3 * self._config.save_timeout
        while (flight := ledger.flight) is not None:
            if flight.done is None:
                flight.done = anyio.Event()
            with anyio.CancelScope(shield=True, deadline=deadline) as scope:
                await flight.done.wait()
            if scope.cancelled_caught:
                raise no_answer()
            awaited = flight
        return awaited

    # --- the end of one session's exchange ------------------------------------------------------

    def let_go(self, ledger: Ledger) -> None:
        """Close a ledger, after the end of a commit in flight and of what waits behind it.

        A commit is in flight here only if its wait was ended by a second native cancellation, so
        the task that wrote cannot wait any more; without `run` there is no other that could.
        """
        if ledger.flight is not None:
            if self._tasks is not None and self._flusher.is_at_home():
                self._tasks.start_soon(self._finish, ledger)
                return
            if ledger.journal.flushable:
                log.error("%s: cancelled again and again, it lost its last writes", ledger)
        ledger.close()

    async def _finish(self, ledger: Ledger) -> None:
        try:
            with anyio.CancelScope(shield=True):
                await self.settle_up(ledger, issuing=False)
        except (StoreError, UsageError):
            log.exception("%s: writes of a cancelled task could not be stored", ledger)
        finally:
            ledger.close()

    # --- flights -------------------------------------------------------------------------------

    async def commit(self, flights: Flights, touches: Touches = ()) -> None:
        """Give flights to the store and its answers to the ledgers.

        The changes reach the store before the first suspension, and every flight lands, whatever
        happens to this task.
        """
        changes = [leg.change for _, flight in flights for leg in flight.legs]
        try:
            outcomes = await self.ask([*changes, *(touch for touch, _ in touches)])
        except BaseException:
            self._lost_the_wait(flights)
            raise
        answers = iter(outcomes)
        for ledger, flight in flights:
            self.land(ledger, flight, [next(answers) for _ in flight.legs])
        for (touch, ledgers), outcome in zip(touches, answers, strict=True):
            for ledger in ledgers:
                ledger.settle_touch(touch, outcome)
        del outcomes, answers  # see `Flight.take_error`

    def land(self, ledger: Ledger, flight: Flight, outcomes: Sequence[Outcome]) -> None:
        """Note a flight's answers, wake who waits for them, and hand over what came meanwhile."""
        settle(ledger, flight, outcomes)
        if flight.done is not None:
            flight.done.set()
        if flight.gone:
            report_void(ledger)
        elif flight.error is None:  # else it waits for the next save, or would spin
            self.wrote(ledger)

    async def ask(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """Commit, shielded and with a deadline; a failure of the store is everyone's outcome."""
        deadline = anyio.current_time() + self._config.save_timeout
        try:
            with anyio.CancelScope(shield=True, deadline=deadline):
                outcomes = await self._store.commit(changes, self._clock())
                if len(outcomes) == len(changes):
                    return outcomes
                count = len(outcomes)
                log.error("%r gave %d outcomes for %d changes", self._store, count, len(changes))
                return [no_answer() for _ in changes]
        except StoreError as error:
            return [_own(error) for _ in changes]
        except Exception:  # a store that breaks the contract must not end the flusher for all
            log.exception("%r failed with something else than a StoreError", self._store)
            return [no_answer() for _ in changes]
        return [self._withdraw(change) for change in changes]

    def _withdraw(self, change: Change) -> StoreError:
        if isinstance(self._store, Withdraws) and self._store.withdraw(change):
            return SaveTimeout(
                f"session {change.handle}: the store did not take a change within"
                f" {self._config.save_timeout:g} s (SessionConfig.save_timeout); it is not stored"
            )
        return no_answer()

    # --- after asyncio's Task.cancel(), which no shield stops ----------------------------------

    def _lost_the_wait(self, flights: Flights) -> None:
        """Let somebody else find out what became of flights whose answers are lost."""
        if self._tasks is not None and self._flusher.is_at_home():
            self._tasks.start_soon(self._find_out, flights)
            return
        for ledger, flight in flights:
            self.land(ledger, flight, [no_answer() for _ in flight.legs])

    async def _find_out(self, flights: Flights) -> None:
        """Look at what is stored now. What cannot be seen stays in doubt: it is not an end."""
        for ledger, flight in flights:
            seen: list[Record | StoreError | None] = []
            with anyio.CancelScope(shield=True):  # a look has a deadline; a flight must land
                for leg in flight.legs:
                    seen.append(await self._look_behind(leg.segment.life))  # noqa: PERF401
            self.land(ledger, flight, list(map(_outcome, flight.legs, seen)))
            last = seen[-1]
            if ledger.state is State.UNKNOWN and not isinstance(last, StoreError):
                try:
                    self.readopt(ledger, last)
                except StoreCorrupt:
                    log.exception("%s: what became of it cannot be read", ledger)

    async def _look_behind(self, life: Life) -> Record | StoreError | None:
        try:
            return await self.read_behind(life)
        except StoreError as error:
            return error
        except Exception:  # a store that breaks the contract must not end the flusher for all
            log.exception("%r failed with something else than a StoreError", self._store)
            return no_answer()

    def readopt(self, ledger: Ledger, record: Record | None) -> None:
        """Become what is stored; report it if that voids what is unsaved or in doubt."""
        writes = bool(ledger.journal) or ledger.doubt is not None
        self._loader.readopt(ledger, record)
        if writes and ledger.state is State.VOID:
            report_void(ledger)

    async def read_behind(self, life: Life) -> Record | None:
        """Load a session after everything that was handed over for it has been applied."""
        [outcome] = await self.ask([Touch(life.handle, life.epoch, expires=0.0)])
        if isinstance(outcome, StoreError):
            raise outcome
        return await self._loader.load(life.handle, self._clock())


def _outcome(leg: Leg, seen: Record | StoreError | None) -> Outcome:
    """Return what is certain of a change whose answer was lost, from what was seen behind it."""
    if isinstance(seen, StoreError):
        return SaveOutcomeUnknown(str(seen))
    return Committed(0) if seen is None and isinstance(leg.change, Destroy) else no_answer()


def report_void(ledger: Ledger) -> None:
    """Log, once per exchange, that its writes are void."""
    if not ledger.lost_writes:
        ledger.lost_writes = True
        log.info("%s: it has ended or moved on; writes of this request are void", ledger)


def no_answer() -> SaveOutcomeUnknown:
    """Return the outcome of a change that the store has not answered."""
    return SaveOutcomeUnknown("the store took a change and did not say what became of it")


def _own(error: StoreError) -> StoreError:
    """Return an instance for one request alone: tracebacks of requests must not mix."""
    own = copy(error)
    own.__cause__ = error
    return own


def _look(ledger: Ledger) -> UsageError | None:
    try:
        ledger.look()
    except UsageError as error:
        return error
    return None
