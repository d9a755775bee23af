"""No `repr` of anything in a session's making shows an id, a secret, its hash or a value (P10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from minisession import (
    Conflict,
    CookieTooLate,
    MinisessionError,
    SaveOutcomeUnknown,
    SessionClosed,
    SessionConfig,
    SessionManager,
    SessionTooLarge,
    UnstorableValue,
)
from minisession._exchange import Exchange
from minisession._ids import hash_secret, split_id
from minisession.abc import Expect, Touch
from minisession.stores.memory import MemoryStore

from .lab import Desk, at_once, ledger_of

PACKAGE = "minisession"
VALUE = "4929-1234-5678-9012"
SHOWN = {
    "Committer",
    "Conflict",
    "Create",
    "Destroy",
    "Exchange",
    "Expect",
    "Flight",
    "Journal",
    "Ledger",
    "Leg",
    "Life",
    "Loader",
    "MemoryStore",
    "Record",
    "Rotation",
    "Row",
    "Segment",
    "Session",
    "SessionManager",
    "Touch",
    "View",
    "Write",
}


def everything_in(*roots: object) -> Iterator[object]:
    """Every object of this package that can be reached through attributes and containers."""
    seen: set[int] = set()
    todo = list(roots)
    while todo:
        thing = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, dict):
            todo += [*thing.values()]
        elif isinstance(thing, (list, tuple, set)):
            todo += thing
        elif type(thing).__module__.startswith(PACKAGE):
            yield thing
            todo += _attributes(thing)


def _attributes(thing: object) -> list[object]:
    names = [*getattr(thing, "__dict__", ())]
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    return [getattr(thing, name) for name in names if hasattr(thing, name)]


def secrets_of(*ids: str | None) -> list[str]:
    """Every form in which an id could be shown."""
    forms = [VALUE]
    for id in ids:
        pair = split_id(id or "")
        assert pair is not None
        hashed = hash_secret(pair[1])
        forms += [pair[1], hashed.hex(), repr(hashed)[2:-1]]
    return forms


def test_no_repr_shows_a_secret_or_a_value() -> None:
    desk = Desk()
    manager = SessionManager(MemoryStore())
    id = desk.begun(card=VALUE, cards=[VALUE])
    session = desk.exchange(id)
    ledger = ledger_of(session)
    session["more"] = [VALUE]
    session.regenerate()
    session["more still"] = VALUE
    flight = desk.take(session)
    session["pending"] = VALUE
    session.regenerate()
    record = desk.store.load_nowait(session.handle or "", desk.now)
    assert record is not None
    cookie = f"__Host-MINISESSID={id}".encode()
    exchange = Exchange(manager, [(b"cookie", cookie)], "/", https=True)
    begun = desk.exchange()
    begun["card"] = VALUE
    proposal = desk.exchange(id)
    proposal["card"] = VALUE
    desk.commit(ledger_of(proposal))
    proposed = ledger_of(proposal).propose("card", b'"old"', VALUE, desk.now)
    others = (
        record,
        exchange,
        desk.take(begun),
        proposed,
        Expect("card", VALUE.encode()),
        Touch("handle", 1, 2.0),
        Conflict("raced", VALUE.encode()),
        desk.store,
        manager,
    )
    ending = desk.exchange(id)
    ending.destroy()
    forbidden = secrets_of(id, session.id, begun.id)

    found = list(everything_in(session, ledger, flight, *others, desk.take(ending)))

    assert {type(thing).__name__ for thing in found} >= SHOWN
    leaks = [
        type(thing).__name__
        for thing in found
        if any(secret in repr(thing) for secret in forbidden)
    ]
    assert leaks == []


def _unstorable(desk: Desk, id: str) -> None:
    desk.exchange(id)["card"] = [VALUE, {"k": {VALUE, 1j}}]


def _too_large(desk: Desk, id: str) -> None:
    desk.config = SessionConfig(max_size=10)
    desk.exchange(id)["another"] = VALUE


def _closed(desk: Desk, id: str) -> None:
    session = desk.exchange(id)
    assert session.is_started
    ledger_of(session).close()
    session.get("card")


def _too_late(desk: Desk, id: str) -> None:
    session = desk.exchange(id)
    ledger_of(session).seal(desk.now)
    session.regenerate()


def _unknown(desk: Desk, id: str) -> None:
    session = desk.exchange(id)
    session["card"] = VALUE
    desk.answer(session, desk.take(session), SaveOutcomeUnknown(""))
    session["card"] = VALUE


def _raced(desk: Desk, id: str) -> None:
    session = desk.exchange(id)
    assert session.is_started
    flight = ledger_of(session).propose("card", b"1", VALUE, desk.now)
    [outcome] = desk.apply([leg.change for leg in flight.legs])
    assert isinstance(outcome, Conflict)
    raise outcome


def _too_large_in_the_store(desk: Desk, id: str) -> None:
    session = desk.exchange(id)
    assert session.is_started
    session["card"] = VALUE
    ledger_of(session).config = SessionConfig(max_size=10)
    session["card"] = VALUE * 2


@pytest.mark.parametrize(
    ("meet", "kind"),
    [
        (_unstorable, UnstorableValue),
        (_too_large, SessionTooLarge),
        (_closed, SessionClosed),
        (_too_late, CookieTooLate),
        (_unknown, SaveOutcomeUnknown),
        (_raced, Conflict),
        (_too_large_in_the_store, SessionTooLarge),
    ],
)
def test_no_error_shows_a_secret_or_a_value(
    meet: Callable[[Desk, str], None], kind: type[MinisessionError]
) -> None:
    desk = Desk()
    id = desk.begun(card=VALUE)

    with pytest.raises(kind) as caught:
        meet(desk, id)

    said = str(caught.value) + repr(caught.value)
    assert not [secret for secret in secrets_of(id) if secret in said]


async def _open_an_id_as_a_handle(id: str) -> None:
    async with SessionManager("memory://").open_handle(id):
        raise AssertionError("not reached")


def test_an_id_given_for_a_handle_is_not_repeated() -> None:
    id = Desk().begun()

    with pytest.raises(MinisessionError) as caught:
        at_once(_open_an_id_as_a_handle(id))

    assert not [secret for secret in secrets_of(id) if secret in str(caught.value)]
    assert "an id is none" in str(caught.value)
