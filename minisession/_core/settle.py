"""What the store's answers mean for a session: landed, void, kept, forgotten or in doubt.

    outcome                 the change was                  the session afterwards
    Committed               stored                          knows it as stored
    Gone                    not applied: it had ended       is void, and so is all that is unsaved
    StoreUnavailable        certainly not stored            keeps the change for the next save
    SaveOutcomeUnknown      perhaps stored                  refuses writes until a refresh
    any other error         refused for good                forgets the change

Pure bookkeeping on `Books`, under its lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy

from minisession._core.books import Books, State
from minisession._core.change import Committed, Destroy, Gone, Outcome
from minisession._core.journal import ISSUING, Kind, Life, Segment, apply
from minisession._core.plan import Flight, Leg
from minisession.errors import MinisessionError, SaveOutcomeUnknown, StoreUnavailable


def settle(books: Books, flight: Flight, outcomes: Sequence[Outcome]) -> None:
    """Note the store's answers, one for each change of the flight, which has landed then.

    The first Gone voids the rest: what comes after it was meant for a session that others had
    ended or moved on before these writes. A session that this exchange has destroyed meanwhile is
    destroyed, whoever was first. A closed session stays as it is.
    """
    with books.lock:
        books.flight = None
        if books.state is State.CLOSED:
            flight.gone = any(isinstance(outcome, Gone) for outcome in outcomes)
            flight.error = next((o for o in outcomes if isinstance(o, MinisessionError)), None)
            return
        kept: list[Segment] = []
        for leg, outcome in zip(flight.legs, outcomes, strict=True):
            if isinstance(outcome, Committed):
                _landed(books, leg, outcome)
            elif not isinstance(outcome, Gone):
                flight.error = flight.error or outcome
                kept += _missed(books, leg, outcome)
                # An instance of its own: the two are raised in different tasks.
                flight.refused = copy(books.refused)
            elif outcome.replaced or not leg.segment.life.ended:
                flight.gone = True
                books.void(leg.segment.life, superseded=outcome.replaced)
                return
            else:
                flight.gone = leg.proposal
        if kept:
            books.journal.restore(kept)


def _landed(books: Books, leg: Leg, outcome: Committed) -> None:
    life, segment = leg.segment.life, leg.segment
    if isinstance(leg.change, Destroy):
        return
    expected = life.epoch + 1 if segment.kind is Kind.ROTATE else life.epoch
    life.outdated = life.outdated or outcome.epoch != expected
    life.epoch, life.expires = expected, leg.change.expires
    if leg.change.cookie_until is not None:
        life.cookie_until = leg.change.cookie_until
    if segment.principal is not None:
        life.principal = segment.principal or None
    if life is not books.life:
        return
    apply(segment, books.stored)
    if leg.proposal:
        _show_proposed(books, segment.items)
    if segment.kind in ISSUING:
        books.issued = True
    if segment.kind in ISSUING or segment.renew_cookie:
        books.confirmed = not life.outdated


def _show_proposed(books: Books, items: Mapping[str, bytes | None]) -> None:
    for key, data in items.items():
        if data is not None and not books.journal.names(key):
            books.view.put_encoded(key, data)


def _missed(books: Books, leg: Leg, error: MinisessionError) -> list[Segment]:
    """Return what to keep of what the store did not commit; forget or doubt the rest."""
    life, kind = leg.segment.life, leg.segment.kind
    if isinstance(error, SaveOutcomeUnknown):
        _doubt(books, leg, error)
        return []
    if kind is Kind.CREATE:
        life.stored = False
    if leg.proposal or (life.ended and kind is not Kind.DESTROY):
        return []
    if isinstance(error, StoreUnavailable):
        return leg.parts
    books.refused = error
    if life is books.life:
        _forget(books, leg)
    return []


def _doubt(books: Books, leg: Leg, error: SaveOutcomeUnknown) -> None:
    """Refuse writes until a refresh; a `destroy()` in doubt is told by the next save."""
    leg.segment.life.in_doubt = True
    if leg.segment.life is not books.life:
        books.refused = error
        return
    books.state, books.doubt = State.UNKNOWN, leg.segment
    books.doubt_told = leg.proposal  # by the update that waits for it


def _forget(books: Books, leg: Leg) -> None:
    """Undo here what the store refused for good."""
    kind, life = leg.segment.kind, leg.segment.life
    if kind is Kind.CREATE:
        _unstart(books, life)
    elif kind is Kind.ROTATE:
        _unrotate(books, life, leg.segment.replaced_secret)
    books.show_stored()


def _unstart(books: Books, life: Life) -> None:
    books.journal.forget(life)
    books.life, books.state = None, State.NONE


def _unrotate(books: Books, life: Life, secret: str | None) -> None:
    """Go back to the secret that the store has, unless another one is on its way already."""
    pending = books.journal.issuing
    if pending is None:
        life.secret = secret
    else:
        pending.replaced_secret = secret
