"""`Books`: everything that is known of one session during one exchange, and its lifecycle.

Here is what a manager does with it: load it (`adopt`), hand over what is unsaved (`take`), prepare
a response (`seal`) and end the exchange. What the application does is in `ledger`, what the
store's answers mean in `settle`. Every method decides at once and returns.

    state     reads            writes                      becomes
    UNREAD    load first       load first                  LIVE, NONE, VOID or FAILED
    NONE      empty            start a session             LIVE, by the first write
    LIVE      what it holds    noted in the journal        NONE by destroy, VOID by Gone,
                                                           UNKNOWN by a commit without an answer
    VOID      what it held     shown here, stored nowhere  NONE by destroy, unless superseded
    UNKNOWN   what it holds    SaveOutcomeUnknown          LIVE or VOID by refresh, NONE by destroy
    FAILED    the StoreError   the StoreError
    EXCLUDED  SessionExcluded  SessionExcluded
    CLOSED    SessionClosed    SessionClosed               (every state ends here)

All mutable state is named in `__slots__` and changes under `lock`, which is never held across an
await. Invariant, but in VOID: `view` shows `stored` with the flight and then the journal applied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from threading import RLock
from typing import TYPE_CHECKING

from minisession._ids import join_id, new_handle, new_secret
from minisession.errors import MinisessionError, SaveOutcomeUnknown, StoreError

from .change import Outcome, Record, Touch
from .journal import ISSUING, Journal, Kind, Life, Segment, apply
from .plan import Flight, as_flight, cookie_is_due, touch_is_due
from .view import View

if TYPE_CHECKING:
    from minisession.config import SessionConfig


class State(Enum):
    """Where a session is in its life; the table is at the top of this file."""

    UNREAD = "unread"
    NONE = "not started"
    LIVE = "live"
    VOID = "gone"
    UNKNOWN = "outcome unknown"
    FAILED = "failed to load"
    EXCLUDED = "excluded"
    CLOSED = "closed"


class CookieOrder(Enum):
    """What a response does to the browser's cookie."""

    LEAVE = "leave"
    SET = "set"
    DELETE = "delete"


Candidates = Callable[[], Sequence[tuple[str, str]]]
"""Returns the ids, split, that a request presents. Asked when the session is loaded, so that a
request that touches no session does not even look for its cookie."""


class Books:
    """One session in one exchange, as its manager sees it."""

    __slots__ = (
        "__weakref__",
        "active",
        "adoptable",
        "arrived",
        "candidates",
        "config",
        "confirmed",
        "destroyed",
        "doubt",
        "doubt_told",
        "failure",
        "flight",
        "is_flushed",
        "issued",
        "journal",
        "life",
        "lock",
        "lost_writes",
        "passive_depth",
        "principal",
        "ready",
        "refused",
        "sealed",
        "shut_down",
        "state",
        "stored",
        "superseded",
        "touched",
        "view",
    )

    def __init__(
        self,
        config: SessionConfig,
        candidates: Candidates,
        *,
        arrived: float,
        is_flushed: bool,
        excluded: bool,
    ) -> None:
        self.config = config
        self.candidates = candidates
        self.arrived = arrived  # seconds since the epoch: what an id was worth then, it is worth
        self.is_flushed = is_flushed  # writes are handed over at the next tick
        self.lock = RLock()
        self.view = View()
        self.stored: dict[str, bytes] = {}
        self.principal: str | None = None  # as it is shown, like the view
        self.journal = Journal()
        self.flight: Flight | None = None
        self.life: Life | None = None
        self.failure: StoreError | None = None
        self.refused: MinisessionError | None = None  # for good; raised by the next save
        self.adoptable: tuple[str, str] | None = None
        self.doubt: Segment | None = None  # what the store may have, in State.UNKNOWN
        self.doubt_told = False  # the application has met the error that says so
        self.ready = False  # the next touch needs no look at the state
        self.touched = False  # the response depends on the cookie
        self.active = False  # somebody used the session, and not passively
        self.passive_depth = 0
        self.sealed = False  # no id can be issued: the headers are leaving, or have left
        self.shut_down = False  # the application may not use it any more
        self.destroyed = False
        self.superseded = False  # it is void because others gave the session another id
        self.issued = False  # this exchange gave the session its id
        self.confirmed = False  # the store has said, since the seal, that the id is current
        self.lost_writes = False  # a write was void: others had ended the session
        self.state = State.EXCLUDED if excluded else State.UNREAD

    def __repr__(self) -> str:
        handle = "" if self.life is None else f" {self.life.handle}"
        return f"<session{handle} {self.state.value}>"

    @property
    def id(self) -> str | None:
        """The whole id, if there is one and it is known."""
        life = self.life
        if life is None or life.secret is None or self.state is State.VOID:
            return None
        return join_id(life.handle, life.secret)

    # --- the manager's half: loading -----------------------------------------------------------

    def adopt(self, record: Record, secret: str | None, *, borrowed: bool = False) -> None:
        """Become the stored session, and put what is unsaved on top.

        Raises StoreCorrupt, with nothing changed, if a value cannot be decoded.
        """
        with self.lock:
            stored = dict(record.items)
            self.view.show(self._with_what_is_unsaved(stored))
            life = self.life or Life(record.handle, secret)
            life.epoch, life.stored = record.epoch - borrowed, True
            life.created, life.expires = record.created, record.expires
            life.cookie_until, life.principal = record.cookie_until, record.principal
            life.outdated, life.in_doubt = borrowed, False
            self.life, self.state = life, State.LIVE
            self._settle_doubt(record, secret)
            rotation = self.journal.issuing
            if rotation is None:
                life.secret = secret
            else:
                rotation.replaced_secret = secret
            self.stored = stored
            self.principal = self._named_principal()

    def _settle_doubt(self, record: Record, secret: str | None) -> None:
        """Find out, from what was stored behind it, whether what was in doubt is stored.

        What does not show may be lost: the next save tells, unless somebody has been told.
        """
        doubt, self.doubt = self.doubt, None
        if doubt is None:
            return
        if doubt.kind in ISSUING:
            is_stored = secret != doubt.replaced_secret
            self.issued = self.issued or is_stored
        else:
            is_stored = _shows(record, doubt)
        if not is_stored and not self.doubt_told:
            self.refused = self.refused or SaveOutcomeUnknown(
                "the store did not say what became of a write, and what it has does not show it"
            )

    @property
    def stored_secrets(self) -> list[str | None]:
        """The secrets that the store may have: two while it is in doubt whether one replaced it.

        None stands for a session that was opened by its handle.
        """
        assert self.life is not None, "nothing is stored of a session that is none"  # noqa: S101
        rotation = self.journal.issuing
        known = [self.life.secret if rotation is None else rotation.replaced_secret]
        if self.doubt is not None and self.doubt.kind is Kind.ROTATE:
            known.append(self.doubt.replaced_secret)
        return known

    def adopt_nothing(self, claim: tuple[str, str] | None = None) -> None:
        """Become empty. `claim` is the id to start a session under, without strict mode only."""
        with self.lock:
            self.life, self.state, self.adoptable = None, State.NONE, claim
            self.doubt = None
            self.journal = Journal()
            self._show_nothing()

    def adopt_stale(self, handle: str) -> None:
        """Become void: the presented id was replaced while its request was on the way."""
        self.void(Life(handle, None), superseded=True)

    def was_not_created(self) -> None:
        """The store has not got what was in doubt: it is to be created, under another id.

        The old id must not be used again: perhaps the session was created, and ended by others.
        """
        with self.lock:
            if self.doubt is not None:
                life = self.doubt.life
                life.handle, life.secret = new_handle(), new_secret()
                life.stored = life.in_doubt = False
                self.journal.restore([self.doubt])
            self.doubt, self.state = None, State.LIVE

    def fail(self, error: StoreError) -> None:
        """Remember that loading failed: from now on every touch raises `error`."""
        self.failure, self.state = error, State.FAILED

    @property
    def load_failure(self) -> StoreError | None:
        """The error with which loading failed, if somebody has met it."""
        return self.failure if self.touched else None

    # --- the manager's half: saving ------------------------------------------------------------

    @property
    def flushable(self) -> bool:
        """Whether something could be handed over now, without an answer to carry an id."""
        return self.flight is None and self.journal.flushable

    @property
    def unsaved(self) -> bool:
        """Whether a save might find something to do, or to tell. Asking loads nothing."""
        return bool(
            self.journal.segments
            or self.view.exposed
            or self.flight
            or self.refused
            or self.state is State.UNKNOWN
        )

    def look(self) -> None:
        """Note what has changed inside values in the application's hands.

        Raises UnstorableValue or SessionTooLarge for the first value that cannot be stored; it
        is replaced by what it was, the others are noted all the same.
        """
        with self.lock:
            writable = self.state in (State.LIVE, State.UNKNOWN)
            if not writable or self.life is None or not self.view.exposed:
                return
            changes, error = self.view.changed_inside(self.config.max_size)
            if changes:
                self.journal.open_segment(self.life).items.update(changes)
            try:
                if error is not None:
                    raise error
            finally:
                del error  # as in `View.changed_inside`

    def take(self, now: float, *, issuing: bool) -> Flight | None:
        """Hand over what the journal holds; `settle` must follow. None if there is nothing.

        Nothing is taken while something is in flight, for a session has one commit at a time, nor
        while an outcome is unknown, for it decides what comes after it.

        Args:
            now: the time, in seconds since the epoch.
            issuing: take also what issues an id, and everything after it.
        """
        with self.lock:
            if self.flight is not None or self.state is State.UNKNOWN:
                return None
            taken = self.journal.take(issuing=issuing)
            if not taken:
                return None
            for segment in taken:
                segment.life.stored = True
            self.flight = as_flight(taken, self.config, now)
            return self.flight

    def pause(self) -> Flight:
        """Hand over nothing until `settle`: the session is being read. Nothing may be in flight."""
        with self.lock:
            self.flight = Flight([])
            return self.flight

    def void(self, life: Life, *, superseded: bool) -> None:
        """Let all unsaved writes count for nothing: others have ended `life`, or superseded it."""
        with self.lock:
            self.superseded = superseded
            self.life, self.state = life, State.VOID
            self.journal = Journal()
            self.view.exposed.clear()

    def show_stored(self) -> None:
        """Show what the store has, with what is unsaved on top. Lock held."""
        self.view.show(self._with_what_is_unsaved(self.stored))
        self.principal = self._named_principal()

    def _with_what_is_unsaved(self, stored: dict[str, bytes]) -> dict[str, bytes]:
        encoded = dict(stored)
        for segment in self._unsaved_segments():
            apply(segment, encoded)
        return encoded

    def _named_principal(self) -> str | None:
        named = [s.principal for s in self._unsaved_segments() if s.principal is not None]
        if named:
            return named[-1] or None
        return None if self.life is None else self.life.principal

    def _show_nothing(self) -> None:
        self.stored = {}
        self.view.show({})
        self.principal = None

    def _unsaved_segments(self) -> list[Segment]:
        """What is in flight, then what is in the journal. A proposal counts once it has landed."""
        if self.flight is None and not self.journal.segments:
            return []
        legs = [] if self.flight is None else self.flight.legs
        handed_over = [leg.segment for leg in legs if not leg.proposal]
        unsaved = [*handed_over, *self.journal.segments]
        return [segment for segment in unsaved if segment.life is self.life]

    # --- the exchange's half -------------------------------------------------------------------

    def seal(self, now: float) -> None:
        """Close the headers: no id can be issued from here on.

        Notes that the cookie must be renewed, or an id that was saved earlier confirmed: the
        store says with the next commit whether the id is still current.
        """
        with self.lock:
            self.sealed = True
            self.confirmed = False
            life = self.life
            if self.state is not State.LIVE or life is None:
                return
            if self.issued or (self._is_kept_alive and cookie_is_due(life, self.config, now)):
                self.journal.open_segment(life).renew_cookie = True

    @property
    def _is_kept_alive(self) -> bool:
        """Whether this use counts as activity: only then may the session outlive its cookie.

        What only looks, without counting as activity, must not write: a write counts.
        """
        life = self.life
        written = bool(self.journal) or (life is not None and life.expires > life.cookie_until)
        return written or (self.active and self.config.refresh_on_read)

    @property
    def cookie_order(self) -> CookieOrder:
        """What this response does to the cookie, now that its writes have been answered."""
        if self.state is State.LIVE and self.confirmed:
            return CookieOrder.SET
        if self.state is State.NONE and self.destroyed:
            return CookieOrder.DELETE
        return CookieOrder.LEAVE

    def touch(self, now: float) -> Touch | None:
        """Return the touch that the use since the last time calls for, if it does."""
        life = self.life
        if self.state is not State.LIVE or not self.active or life is None or life.touching:
            return None
        self.active = self.ready = False  # the next use counts again
        touch = touch_is_due(life, self.config, now)
        life.touching = touch is not None
        return touch

    def settle_touch(self, touch: Touch, outcome: Outcome) -> None:
        """Note the store's answer to a touch.

        After an error it is due again at the next use. After a Gone it is not: what has ended or
        moved on is told who writes, and a long response must not ask for it again and again.
        """
        with self.lock:
            life = self.life
            if life is None or life.handle != touch.handle:
                return
            life.touching = False
            if not isinstance(outcome, StoreError):
                life.expires = max(life.expires, touch.expires)

    def abandon(self, *, everything: bool) -> bool:
        """Drop what can or may not be stored any more; tell whether there was anything.

        Args:
            everything: False drops only what issues an id, and all after it: no answer will
                carry that id. True drops all but `destroy()`, which is never rolled back.
        """
        with self.lock:
            if not everything and not self.journal.segments:
                return False
            kept = [s for s in self.journal.segments if s.kind is Kind.DESTROY]
            if not everything:
                kept = self.journal.take(issuing=False)
            dropped = [s for s in self.journal.segments if s not in kept]
            self.journal.segments = kept
            for segment in dropped:
                self._unissue(segment)
            if (dropped or everything) and self.state is State.LIVE:
                self.show_stored()
            return bool(dropped)

    def _unissue(self, segment: Segment) -> None:
        if segment.kind is Kind.CREATE and segment.life is self.life:
            self.life, self.state = None, State.NONE
            self._show_nothing()
        elif segment.kind is Kind.ROTATE:
            segment.life.secret = segment.replaced_secret

    def shut(self) -> None:
        """Refuse further use with SessionClosed; what was written before can still be saved."""
        with self.lock:
            self.shut_down, self.ready = True, False

    def close(self) -> None:
        """End the exchange: every later touch raises SessionClosed."""
        with self.lock:
            self.state, self.ready = State.CLOSED, False
            self.failure = self.refused = None  # their tracebacks lead here
            if self.touched:  # a reference that outlives the exchange keeps no data alive
                self.journal, self.stored, self.view = Journal(), {}, View()


def _shows(record: Record, segment: Segment) -> bool:
    """Tell whether the segment would change nothing of what is stored."""
    items = dict(record.items)
    apply(segment, items)
    return items == record.items and segment.principal in (None, record.principal or "")
