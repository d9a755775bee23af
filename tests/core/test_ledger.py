"""The ledger: its lifecycle, literally as the table at the top of its file says, and what it shows.

What the store's answers mean is in test_settle.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from minisession import (
    CookieTooLate,
    SaveOutcomeUnknown,
    Session,
    SessionClosed,
    SessionConfig,
    SessionExcluded,
    SessionGone,
    StoreCorrupt,
    StoreUnavailable,
    UnstorableValue,
    UsageError,
)
from minisession._core import books as books_module
from minisession._core.books import CookieOrder, State
from minisession._core.ledger import Ledger
from minisession.abc import Committed, Expect, Gone, Outcome, Record, Write

from .lab import Desk, ledger_of

HELD = {"a": 1, "b": [2]}


@pytest.fixture
def desk() -> Desk:
    return Desk()


# --- the table: state x operation ----------------------------------------------------------------


def table() -> dict[str, tuple[str, str, set[str]]]:
    """The lifecycle in the docstring: what reads and writes do, and what a state may become."""
    lines = (books_module.__doc__ or "").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("    state "))
    columns = [lines[start].index(word) for word in ("state", "reads", "writes", "becomes")]
    rows: dict[str, tuple[str, str, set[str]]] = {}
    name = ""
    for line in lines[start + 1 :]:
        if not line.strip():
            return rows
        cells = [
            line[a:b].strip() for a, b in zip(columns, [*columns[1:], len(line)], strict=False)
        ]
        name = cells[0] or name
        reads, writes, becomes = rows.get(name, (cells[1], cells[2], set[str]()))
        named = set(re.findall("[A-Z]{4,}", cells[3]))
        rows[name] = reads, writes, becomes | named
    raise AssertionError("the table does not end")


TABLE = table()


def unread(desk: Desk) -> Session:
    return desk.exchange(desk.begun(**HELD))


def none(desk: Desk) -> Session:
    session = desk.exchange()
    assert len(session) == 0
    return session


def live(desk: Desk) -> Session:
    session = unread(desk)
    assert session.all() == HELD
    return session


def void(desk: Desk) -> Session:
    session = live(desk)
    session["a"] = 1
    desk.answer(session, desk.take(session), Gone())
    return session


def unknown(desk: Desk) -> Session:
    session = live(desk)
    session["a"] = 1
    desk.answer(session, desk.take(session), SaveOutcomeUnknown("no answer"))
    return session


def failed(desk: Desk) -> Session:
    session = unread(desk)
    ledger_of(session).fail(StoreUnavailable("down"))
    return session


def excluded(desk: Desk) -> Session:
    return Session(Ledger(desk, desk.config, excluded=True))


def closed(desk: Desk) -> Session:
    session = live(desk)
    ledger_of(session).close()
    return session


IN_STATE: dict[str, Callable[[Desk], Session]] = {
    "UNREAD": unread,
    "NONE": none,
    "LIVE": live,
    "VOID": void,
    "UNKNOWN": unknown,
    "FAILED": failed,
    "EXCLUDED": excluded,
    "CLOSED": closed,
}

READS: dict[str, Callable[[Session], Any]] = {
    "get": lambda session: session.get("a", "nothing"),
    "in": lambda session: "a" in session,
    "has": lambda session: session.has("a"),
    "len": len,
    "iter": list,
    "all": lambda session: session.all(),
    "items": lambda session: dict(session.items()),
    "==": lambda session: session == HELD,
    "id": lambda session: session.id,
    "handle": lambda session: session.handle,
    "is_started": lambda session: session.is_started,
    "principal": lambda session: session.principal,
}
WRITES: dict[str, Callable[[Session], Any]] = {
    "set": lambda session: session.set("c", 3),
    "replace": lambda session: session.set("a", 3),
    "setdefault": lambda session: session.setdefault("c", 3),
    "update": lambda session: session.update(c=3),
    "principal": lambda session: setattr(session, "principal", "ada"),
}
CHANGES_OF_WHAT_IS_THERE: dict[str, Callable[[Session], Any]] = {
    "del": lambda session: session.__delitem__("a"),
    "pop": lambda session: session.pop("a"),
    "popitem": lambda session: session.popitem(),
    "clear": lambda session: session.clear(),
}
OF_THE_WHOLE: dict[str, Callable[[Session], Any]] = {
    "regenerate": lambda session: session.regenerate(),
    "destroy": lambda session: session.destroy(),
}
EMPTY = dict.fromkeys(("id", "handle", "principal"), None) | {
    "get": "nothing",
    "in": False,
    "has": False,
    "len": 0,
    "iter": [],
    "all": {},
    "items": {},
    "==": False,
    "is_started": False,
}
FULL = {
    "get": 1,
    "in": True,
    "has": True,
    "len": 2,
    "iter": ["a", "b"],
    "all": HELD,
    "items": HELD,
    "==": True,
    "principal": None,
}
ERRORS: dict[str, type[Exception]] = {
    "SessionExcluded": SessionExcluded,
    "SessionClosed": SessionClosed,
    "the StoreError": StoreUnavailable,
    "SaveOutcomeUnknown": SaveOutcomeUnknown,
}


def state_of(session: Session) -> str:
    return ledger_of(session).state.name


def test_the_table_names_every_state() -> None:
    assert list(TABLE) == list(IN_STATE) == [state.name for state in State]


@pytest.mark.parametrize("state", TABLE)
def test_each_state_can_be_reached(desk: Desk, state: str) -> None:
    assert state_of(IN_STATE[state](desk)) == state


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("state", TABLE)
def test_a_read_does_what_the_table_says(desk: Desk, state: str, name: str) -> None:
    says = TABLE[state][0]
    session = IN_STATE[state](desk)
    read = READS[name]

    if says in ERRORS:
        with pytest.raises(ERRORS[says]):
            read(session)
        assert state_of(session) == state
    elif says == "empty":
        assert read(session) == EMPTY[name]
        assert state_of(session) == state
    else:
        assert says in ("what it holds", "what it held", "load first")
        assert read(session) == FULL.get(name, read(session))
        assert session.handle is not None
        assert state_of(session) == ("LIVE" if says == "load first" else state)
        assert (session.id is None) is (state == "VOID")
        assert session.is_started is (state != "VOID")


@pytest.mark.parametrize("name", [*WRITES, *CHANGES_OF_WHAT_IS_THERE])
@pytest.mark.parametrize("state", TABLE)
def test_a_write_does_what_the_table_says(desk: Desk, state: str, name: str) -> None:
    says = TABLE[state][1]
    session = IN_STATE[state](desk)
    ledger = ledger_of(session)
    write = (WRITES | CHANGES_OF_WHAT_IS_THERE)[name]

    if says in ERRORS:
        with pytest.raises(ERRORS[says]):
            write(session)
        assert state_of(session) == state
        assert not ledger.journal
    elif says == "start a session":
        if name in CHANGES_OF_WHAT_IS_THERE:
            _assert_nothing_is_there(session, name)
        else:
            write(session)
            assert state_of(session) == "LIVE"
            assert ledger.journal
    elif says == "shown here, stored nowhere":
        before = session.all(), session.principal
        write(session)
        assert (session.all(), session.principal) != before
        assert not ledger.journal
        assert state_of(session) == state
    else:
        assert says in ("noted in the journal", "load first")
        write(session)
        assert ledger.journal
        assert state_of(session) == "LIVE"


def _assert_nothing_is_there(session: Session, name: str) -> None:
    if name == "clear":
        session.clear()
    else:
        with pytest.raises(KeyError):
            CHANGES_OF_WHAT_IS_THERE[name](session)
    assert state_of(session) == "NONE"


@pytest.mark.parametrize("name", OF_THE_WHOLE)
@pytest.mark.parametrize("state", TABLE)
def test_replacing_the_id_and_ending_the_session_are_writes(
    desk: Desk, state: str, name: str
) -> None:
    says = TABLE[state][1]
    session = IN_STATE[state](desk)
    journal = ledger_of(session).journal

    ends_what_is_in_doubt = (state, name) == ("UNKNOWN", "destroy")
    if says in ERRORS and not ends_what_is_in_doubt:
        with pytest.raises(ERRORS[says]):
            OF_THE_WHOLE[name](session)
    else:
        OF_THE_WHOLE[name](session)

    noted = says in ("noted in the journal", "load first") or ends_what_is_in_doubt
    assert [segment.kind.value for segment in journal.segments] == (
        [{"regenerate": "rotate", "destroy": "destroy"}[name]] if noted else []
    )


# --- the table: what becomes of a state ----------------------------------------------------------


def write_and_hear(*outcomes: Any) -> Callable[[Desk, Session], object]:
    def write(desk: Desk, session: Session) -> None:
        session["c"] = 3
        desk.answer(session, desk.take(session), *outcomes)

    return write


def ended_by_others(desk: Desk, session: Session) -> None:
    ledger = ledger_of(session)
    assert ledger.life is not None
    ledger.void(ledger.life, superseded=False)


def touched(_: Desk, session: Session) -> None:
    assert len(session) >= 0


def touched_when_it_had_expired(desk: Desk, session: Session) -> None:
    desk.now *= 2
    assert len(session) == 0


BECOMES: list[tuple[str, str, Callable[[Desk, Session], object]]] = [
    ("UNREAD", "LIVE", touched),
    ("UNREAD", "NONE", touched_when_it_had_expired),
    ("UNREAD", "VOID", lambda _, session: ledger_of(session).adopt_stale("handle")),
    ("UNREAD", "FAILED", lambda _, session: ledger_of(session).fail(StoreUnavailable(""))),
    ("NONE", "LIVE", write_and_hear()),
    ("LIVE", "NONE", lambda _, session: session.destroy()),
    ("LIVE", "VOID", write_and_hear(Gone())),
    ("LIVE", "UNKNOWN", write_and_hear(SaveOutcomeUnknown(""))),
    ("VOID", "NONE", lambda _, session: session.destroy()),
    ("UNKNOWN", "LIVE", lambda desk, session: desk.refresh_now(session)),
    ("UNKNOWN", "NONE", lambda _, session: session.destroy()),
    ("UNKNOWN", "VOID", ended_by_others),
    *((state, "CLOSED", lambda _, session: ledger_of(session).close()) for state in IN_STATE),
]


def test_the_table_names_exactly_what_can_become_of_each_state() -> None:
    possible: dict[str, set[str]] = {state: set() for state in IN_STATE}
    for before, after, _ in BECOMES:
        if after != "CLOSED":  # "every state ends here"
            possible[before].add(after)

    assert {state: row[2] for state, row in TABLE.items()} == possible


@pytest.mark.parametrize(
    ("before", "after", "how"), BECOMES, ids=[f"{a}-{b}" for a, b, _ in BECOMES]
)
def test_a_state_becomes_what_the_table_says(
    desk: Desk, before: str, after: str, how: Callable[[Desk, Session], object]
) -> None:
    session = IN_STATE[before](desk)

    how(desk, session)

    assert state_of(session) == after


# --- loading -------------------------------------------------------------------------------------


FLAGS = [
    "active",
    "confirmed",
    "destroyed",
    "doubt_told",
    "issued",
    "is_flushed",
    "lost_writes",
    "ready",
    "sealed",
    "shut_down",
    "superseded",
    "touched",
]
FACTS = ["adoptable", "doubt", "failure", "flight", "life", "principal", "refused"]


def test_an_exchange_begins_with_nothing_done_and_nothing_known(desk: Desk) -> None:
    ledger = Ledger(desk, desk.config)

    assert {name for name in FLAGS if getattr(ledger, name) is not False} == set()
    assert {name for name in FACTS if getattr(ledger, name) is not None} == set()
    assert (ledger.state, ledger.stored, ledger.arrived) == (State.UNREAD, {}, 0.0)


def test_an_exchange_knows_when_it_arrived_and_whether_it_is_flushed(desk: Desk) -> None:
    ledger = Ledger(desk, desk.config, arrived=desk.now, is_flushed=True)

    assert (ledger.arrived, ledger.is_flushed) == (desk.now, True)


def test_after_the_first_touch_nobody_looks_at_the_state_again(desk: Desk) -> None:
    session = unread(desk)
    assert session["a"] == 1

    assert ledger_of(session).ready


def test_it_is_loaded_once_at_the_first_touch(desk: Desk) -> None:
    session = unread(desk)
    before = desk.loads

    assert session["a"] == 1
    session["c"] = 3
    assert len(session) == 3

    assert desk.loads == before + 1


def test_a_failed_load_is_met_again_at_every_touch_with_a_fresh_traceback(desk: Desk) -> None:
    session = failed(desk)
    lengths = []
    for _ in range(3):
        with pytest.raises(StoreUnavailable) as caught:
            session.get("a")
        lengths.append(len(caught.traceback))

    assert len(set(lengths)) == 1
    assert ledger_of(session).load_failure is caught.value


def test_a_failed_load_that_nobody_met_is_no_failure_of_the_response(desk: Desk) -> None:
    ledger = ledger_of(unread(desk))

    ledger.fail(StoreUnavailable("down"))

    assert ledger.load_failure is None


def record_of(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "handle": "handle",
        "secret": b"",
        "epoch": 2,
        "items": {"a": b"1"},
        "created": 1.0,
        "expires": 2e9,
        "cookie_until": 3.0,
        "principal": "ada",
    }
    return Record(**values | changes)


def test_a_record_that_cannot_be_decoded_changes_nothing(desk: Desk) -> None:
    session = live(desk)
    session["c"] = 3

    with pytest.raises(StoreCorrupt):
        ledger_of(session).adopt(record_of(items={"a": b"{"}), "secret")

    assert session == HELD | {"c": 3}
    assert session.id is not None


def test_a_borrowed_session_writes_with_the_epoch_before(desk: Desk) -> None:
    session = desk.exchange()
    ledger = ledger_of(session)
    ledger.adopt(record_of(), "secret", borrowed=True)
    session["b"] = 2

    [leg] = desk.take(session).legs

    assert isinstance(leg.change, Write)
    assert leg.change.epoch == 1


def test_a_stale_session_reads_as_empty_and_stores_nothing(desk: Desk) -> None:
    id = desk.begun(**HELD)
    login = desk.exchange(id)
    login.regenerate()
    desk.commit(ledger_of(login))

    stale = desk.exchange(id)

    assert dict(stale) == {}
    stale["a"] = 9
    stale.destroy()
    stale.regenerate()
    assert stale.id is None
    assert stale.handle == login.handle
    assert not ledger_of(stale).journal
    ledger_of(stale).seal(desk.now)
    assert ledger_of(stale).cookie_order is CookieOrder.LEAVE


def test_without_strict_mode_the_first_write_starts_a_session_under_the_claimed_id(
    desk: Desk,
) -> None:
    session = desk.exchange()
    ledger_of(session).adopt_nothing(("handle", "secret"))

    session["a"] = 1
    assert session.id == "handle.secret"

    session.destroy()
    session["a"] = 1
    assert session.id != "handle.secret"


def test_reading_again_shows_what_is_stored_with_what_is_unsaved_on_top(desk: Desk) -> None:
    session = live(desk)
    session.principal = "ada"
    session["mine"] = 1
    other = desk.exchange(session.id)
    other.update(a=9, mine=9, theirs=9)
    desk.commit(ledger_of(other))

    desk.refresh_now(session)

    assert session == {"a": 9, "b": [2], "mine": 1, "theirs": 9}
    assert session.principal == "ada"


def test_reading_again_keeps_what_is_in_flight_on_top(desk: Desk) -> None:
    session = live(desk)
    session["flying"] = 1
    flight = desk.take(session)
    session["pending"] = 2

    desk.refresh_now(session)

    assert session == HELD | {"flying": 1, "pending": 2}
    desk.answer(session, flight)
    assert session == HELD | {"flying": 1, "pending": 2}


def test_reading_again_keeps_a_new_id_that_is_not_stored_yet(desk: Desk) -> None:
    session = live(desk)
    old = session.id
    session.regenerate()
    new = session.id
    session["user"] = "ada"

    desk.refresh_now(session)

    assert session.id == new != old
    assert session == HELD | {"user": "ada"}
    desk.commit(ledger_of(session))
    assert new is not None
    assert desk.stored(new) == HELD | {"user": "ada"}


def test_a_new_id_that_nobody_can_carry_is_the_old_one_also_after_reading_again(
    desk: Desk,
) -> None:
    session = live(desk)
    old = session.id
    session.regenerate()
    desk.refresh_now(session)

    ledger_of(session).abandon(everything=False)

    assert session.id == old


def test_reading_again_what_was_outdated_makes_it_current(desk: Desk) -> None:
    id = desk.begun(**HELD)
    session = Session(Ledger(desk, desk.config))
    handle = id.split(".", maxsplit=1)[0]
    record = desk.store.load_nowait(handle, desk.now)
    assert record is not None
    ledger_of(session).adopt(record, None)
    login = desk.exchange(id)
    login.regenerate()
    desk.commit(ledger_of(login))
    session["late"] = 1
    desk.commit(ledger_of(session))
    desk.now += 3600
    assert ledger_of(session).touch(desk.now) is None

    desk.refresh_now(session)

    assert len(session) == 3
    assert ledger_of(session).touch(desk.now) is not None


def test_nothing_is_handed_over_while_it_is_read_again(desk: Desk) -> None:
    session = live(desk)
    ledger = ledger_of(session)
    pause = ledger.pause()
    session["c"] = 3

    assert not ledger.flushable
    assert ledger.take(desk.now, issuing=True) is None

    desk.answer(session, pause)
    assert ledger.flushable


# --- what is written -----------------------------------------------------------------------------


def test_every_write_tells_the_owner(desk: Desk) -> None:
    session = live(desk)
    uses: list[Callable[[], object]] = [
        lambda: session.set("c", 3),
        lambda: session.pop("c"),
        session.clear,
        lambda: setattr(session, "principal", "ada"),
        session.destroy,
    ]
    for use in uses:
        desk.told_of.clear()
        use()
        assert set(desk.told_of) == {ledger_of(session)}


def test_changes_inside_are_noted_when_it_is_looked(desk: Desk) -> None:
    session = live(desk)
    session["b"].append(3)

    flight = desk.take(session)

    assert [dict(leg.segment.items) for leg in flight.legs] == [{"b": b"[2,3]"}]


def test_changes_inside_that_cannot_be_stored_raise_and_the_others_are_noted(desk: Desk) -> None:
    session = live(desk)
    session["c"] = {}
    session["b"].append(object())
    session["c"]["d"] = 1

    with pytest.raises(UnstorableValue, match=r'session\["b"\]\[1\]'):
        ledger_of(session).look()

    desk.commit(ledger_of(session))
    assert session.id is not None
    assert desk.stored(session.id) == HELD | {"c": {"d": 1}}
    assert session["b"] == [2]


def test_changes_inside_what_was_written_to_a_void_session_are_not_noted(desk: Desk) -> None:
    session = void(desk)
    session["c"] = [1]
    session["c"].append(2)

    ledger_of(session).look()

    assert not ledger_of(session).journal


@pytest.mark.parametrize("state", ["UNREAD", "NONE", "VOID", "FAILED", "EXCLUDED", "CLOSED"])
def test_there_is_nothing_to_look_at_in_a_session_that_cannot_be_stored(
    desk: Desk, state: str
) -> None:
    ledger = ledger_of(IN_STATE[state](desk))

    ledger.look()

    assert not ledger.journal


def test_changes_inside_made_while_an_outcome_is_unknown_are_kept(desk: Desk) -> None:
    session = unknown(desk)
    session["b"].append(3)

    ledger_of(session).look()
    desk.refresh_now(session)

    assert session["b"] == [2, 3]
    assert ledger_of(session).flushable


def test_nothing_is_handed_over_while_an_outcome_is_unknown(desk: Desk) -> None:
    session = live(desk)
    session["a"] = 1
    flight = desk.take(session)
    session["c"] = 3
    desk.answer(session, flight, SaveOutcomeUnknown("no answer"))

    assert ledger_of(session).take(desk.now, issuing=True) is None

    desk.refresh_now(session)
    assert session["c"] == 3
    assert ledger_of(session).take(desk.now, issuing=True) is not None


def test_one_flight_at_a_time(desk: Desk) -> None:
    session = live(desk)
    session["c"] = 3
    flight = desk.take(session)
    session["d"] = 4

    assert ledger_of(session).take(desk.now, issuing=True) is None
    assert not ledger_of(session).flushable
    desk.answer(session, flight)
    assert ledger_of(session).flushable


def test_a_clear_is_one_operation_not_one_for_each_key(desk: Desk) -> None:
    session = live(desk)
    session["c"] = 3
    session.clear()
    session["d"] = 4

    [leg] = desk.take(session).legs

    assert isinstance(leg.change, Write)
    assert leg.change.clear
    assert leg.change.items == {"d": b"4"}


# --- ids -----------------------------------------------------------------------------------------


def test_a_new_id_keeps_the_handle_and_the_data(desk: Desk) -> None:
    session = live(desk)
    old, handle = session.id, session.handle

    session.regenerate()

    assert session.id != old
    assert session.handle == handle
    assert session == HELD


def test_an_id_that_is_new_anyway_is_not_replaced_again(desk: Desk) -> None:
    session = desk.exchange()
    session["a"] = 1
    first = session.id
    session.regenerate()
    assert session.id == first

    desk.commit(ledger_of(session))
    session.regenerate()
    second = session.id
    session.regenerate()

    assert second != first
    assert session.id == second


@pytest.mark.parametrize(
    ("first", "second", "loads"),
    [(True, True, False), (True, False, False), (False, True, False), (False, False, True)],
)
def test_the_old_id_goes_on_loading_only_if_every_regenerate_says_so(
    desk: Desk, first: bool, second: bool, *, loads: bool
) -> None:
    id = desk.begun(**HELD)
    session = desk.exchange(id)
    session.regenerate(first)
    session.regenerate(second)
    desk.commit(ledger_of(session))

    assert (desk.stored(id) == HELD) is loads


def test_who_opened_a_session_by_its_handle_cannot_lock_its_browser_out(desk: Desk) -> None:
    session = desk.exchange()
    ledger_of(session).adopt(record_of(), None)

    with pytest.raises(UsageError, match=r"lock its browser out.*async with manager.open\(id\)"):
        session.regenerate()

    assert not ledger_of(session).journal


def test_a_new_id_waits_for_an_answer_and_so_does_what_comes_after_it(desk: Desk) -> None:
    session = live(desk)
    session["before"] = 1
    session.regenerate()
    session["after"] = 2

    desk.commit(ledger_of(session), issuing=False)

    record = desk.store.load_nowait(session.handle or "", desk.now)
    assert record is not None
    assert set(record.items) == {"a", "b", "before"}
    assert not ledger_of(session).flushable


@pytest.mark.parametrize(
    ("state", "use", "named"),
    [
        ("NONE", lambda session: session.set("a", 1), "first write of a session"),
        ("LIVE", lambda session: session.regenerate(), r"regenerate\(\)"),
        (
            "LIVE",
            lambda session: (session.destroy(), session.set("a", 1)),
            "first write of a session",
        ),
    ],
)
def test_an_id_cannot_be_issued_once_the_headers_have_left(
    desk: Desk, state: str, use: Callable[[Session], object], named: str
) -> None:
    session = IN_STATE[state](desk)
    ledger_of(session).seal(desk.now)

    with pytest.raises(CookieTooLate, match=rf"{named} needs .*before the response starts"):
        use(session)


@pytest.mark.parametrize(
    "use",
    [
        lambda session: session.set("c", 1),
        lambda session: session.clear(),
        lambda session: session.destroy(),
        lambda session: setattr(session, "principal", "ada"),
    ],
)
def test_everything_else_works_after_the_headers_have_left(
    desk: Desk, use: Callable[[Session], object]
) -> None:
    session = live(desk)
    ledger_of(session).seal(desk.now)

    use(session)

    assert ledger_of(session).flushable


# --- the cookie ----------------------------------------------------------------------------------


def order_after_the_seal(desk: Desk, session: Session) -> CookieOrder:
    ledger = ledger_of(session)
    ledger.seal(desk.now)
    desk.commit(ledger)
    return ledger.cookie_order


def written(_: Desk, session: Session) -> None:
    session["c"] = 1


def saved_first(desk: Desk, session: Session) -> None:
    session["c"] = 1
    desk.commit(ledger_of(session))


def rotated(_: Desk, session: Session) -> None:
    session.regenerate()


def rotated_and_saved(desk: Desk, session: Session) -> None:
    session.regenerate()
    desk.commit(ledger_of(session))


def ended(_: Desk, session: Session) -> None:
    session.destroy()


def ended_and_begun(_: Desk, session: Session) -> None:
    session.destroy()
    session["message"] = "bye"


def long_ago(desk: Desk, session: Session) -> None:
    desk.now += 2 * 3600  # within the idle timeout of three hours
    written(desk, session)
    desk.commit(ledger_of(session))
    desk.now += 2 * 3600
    written(desk, session)


@pytest.mark.parametrize(
    ("state", "use", "order"),
    [
        ("NONE", touched, "leave"),
        ("NONE", written, "set"),
        ("NONE", saved_first, "set"),
        ("NONE", ended, "delete"),
        ("NONE", ended_and_begun, "set"),
        ("LIVE", touched, "leave"),
        ("LIVE", written, "leave"),
        ("LIVE", rotated, "set"),
        ("LIVE", rotated_and_saved, "set"),
        ("LIVE", ended, "delete"),
        ("LIVE", ended_and_begun, "set"),
        ("LIVE", long_ago, "set"),
        ("VOID", touched, "leave"),
        ("VOID", written, "leave"),
        ("VOID", ended, "delete"),
        ("VOID", ended_and_begun, "set"),
    ],
)
def test_a_response_carries_a_cookie_only_if_this_exchange_gave_renewed_or_ended_the_id(
    desk: Desk, state: str, use: Callable[[Desk, Session], object], order: str
) -> None:
    session = IN_STATE[state](desk)
    use(desk, session)

    assert order_after_the_seal(desk, session).value == order


def test_a_cookie_is_sent_only_once_the_store_has_confirmed_the_id(desk: Desk) -> None:
    session = desk.exchange()
    session["a"] = 1
    desk.commit(ledger_of(session))
    other = desk.exchange(session.id)
    other.regenerate()
    desk.commit(ledger_of(other))

    assert order_after_the_seal(desk, session) is CookieOrder.LEAVE


def test_no_cookie_is_sent_that_was_not_confirmed_at_this_start(desk: Desk) -> None:
    session = desk.exchange()
    session["a"] = 1
    desk.commit(ledger_of(session))

    ledger_of(session).seal(desk.now)

    assert ledger_of(session).cookie_order is CookieOrder.LEAVE


@pytest.mark.parametrize("state", ["VOID", "UNKNOWN"])
def test_no_cookie_is_renewed_of_a_session_that_may_have_ended(desk: Desk, state: str) -> None:
    session = IN_STATE[state](desk)
    desk.now += 4 * 3600  # less than an idle timeout is left of the cookie

    ledger_of(session).seal(desk.now)

    assert not ledger_of(session).journal


def test_an_id_that_was_ended_is_not_confirmed_for_the_session_after_it() -> None:
    desk = Desk(SessionConfig(cookie_lifetime=60))  # which is never renewed
    session = desk.exchange()
    saved_first(desk, session)
    session.destroy()
    desk.commit(ledger_of(session))
    session["message"] = "bye"
    flight = desk.take(session)

    ledger_of(session).seal(desk.now)

    assert not ledger_of(session).journal
    desk.answer(session, flight)
    assert ledger_of(session).cookie_order is CookieOrder.SET


# --- dropping ------------------------------------------------------------------------------------


def test_what_nobody_can_carry_is_dropped_and_what_came_before_stays(desk: Desk) -> None:
    session = live(desk)
    old = session.id
    session["before"] = 1
    session.regenerate()
    session["after"] = 2

    assert ledger_of(session).abandon(everything=False)

    assert session.id == old
    assert session == HELD | {"before": 1}
    assert ledger_of(session).flushable


def test_a_session_that_nobody_can_carry_never_was(desk: Desk) -> None:
    session = none(desk)
    session["a"] = 1

    assert ledger_of(session).abandon(everything=False)

    assert not session.is_started
    assert dict(session) == {}


def test_a_rollback_drops_every_write_and_changes_inside(desk: Desk) -> None:
    session = live(desk)
    session["c"] = 3
    session["b"].append(3)
    session.principal = "ada"
    session.regenerate()

    assert ledger_of(session).abandon(everything=True)

    assert session == HELD
    assert session.principal is None
    ledger_of(session).look()
    assert not ledger_of(session).journal


def test_a_rollback_without_a_write_undoes_changes_inside_too(desk: Desk) -> None:
    session = live(desk)
    session["b"].append(3)

    assert not ledger_of(session).abandon(everything=True)

    ledger_of(session).look()
    assert not ledger_of(session).journal
    assert session == HELD


@pytest.mark.parametrize("everything", [True, False])
def test_destroying_is_never_dropped(desk: Desk, *, everything: bool) -> None:
    session = live(desk)
    id = session.id or ""
    session.destroy()
    session["message"] = "bye"

    assert ledger_of(session).abandon(everything=everything)
    desk.commit(ledger_of(session), issuing=False)

    assert desk.stored(id) is None
    assert ledger_of(session).cookie_order is CookieOrder.DELETE


def test_with_nothing_to_drop_nothing_is_dropped(desk: Desk) -> None:
    session = live(desk)
    session["b"].append(3)

    assert not ledger_of(session).abandon(everything=False)

    assert session["b"] == [2, 3]
    ledger_of(session).look()
    assert ledger_of(session).journal


def test_a_rollback_leaves_what_a_void_session_shows(desk: Desk) -> None:
    session = void(desk)
    session["c"] = 3

    ledger_of(session).abandon(everything=True)

    assert session == HELD | {"c": 3}


# --- the end -------------------------------------------------------------------------------------


def test_an_excluded_session_names_the_setting_that_excludes_it(desk: Desk) -> None:
    with pytest.raises(SessionExcluded, match=r"SessionConfig\(exclude="):
        excluded(desk).get("a")


def test_an_unknown_outcome_names_the_line_that_looks(desk: Desk) -> None:
    with pytest.raises(SaveOutcomeUnknown, match=r"has not said .*await session.refresh\(\)"):
        unknown(desk)["a"] = 1


def test_a_closed_session_keeps_no_data_alive(desk: Desk) -> None:
    ledger = ledger_of(closed(desk))

    assert (ledger.stored, ledger.view.values, ledger.journal.segments) == ({}, {}, [])


def test_a_session_that_is_shut_refuses_use_and_keeps_what_was_written(desk: Desk) -> None:
    session = live(desk)
    session["c"] = 3

    ledger_of(session).shut()

    with pytest.raises(SessionClosed):
        session.get("a")
    assert [dict(leg.segment.items) for leg in desk.take(session).legs] == [{"c": b"3"}]


def test_a_closed_session_names_the_way_out_with_its_handle(desk: Desk) -> None:
    session = live(desk)
    handle = session.handle
    ledger_of(session).close()

    way_out = rf"has outlived its request; .*open_handle\('{handle}'\)"
    with pytest.raises(SessionClosed, match=way_out):
        session.get("a")


def test_a_closed_session_that_never_was_one_names_the_way_out_too(desk: Desk) -> None:
    session = none(desk)
    ledger_of(session).close()

    with pytest.raises(SessionClosed, match=r"open_handle\(session.handle\)"):
        session.get("a")


def test_a_touch_that_waits_for_the_end_of_the_session_finds_it_closed(desk: Desk) -> None:
    ledger = ledger_of(live(desk))
    ledger.ready = False

    class ClosesMeanwhile:
        """A lock that somebody else gets first, and closes the session under."""

        def __enter__(self) -> None:
            ledger.lock = lock
            ledger.close()

        def __exit__(self, *_: object) -> None: ...

    lock, ledger.lock = ledger.lock, ClosesMeanwhile()  # type: ignore[assignment]
    with pytest.raises(SessionClosed):
        ledger.require_ready()
    assert not ledger.ready


def test_a_proposal_names_what_it_expects(desk: Desk) -> None:
    ledger = ledger_of(live(desk))

    [leg] = ledger.propose("a", b"1", 2, desk.now).legs

    assert isinstance(leg.change, Write)
    assert leg.change.expect == Expect("a", b"1")


def test_nothing_is_proposed_by_a_closed_session(desk: Desk) -> None:
    session = closed(desk)

    with pytest.raises(SessionClosed):
        ledger_of(session).propose("a", None, 1, desk.now)


def test_a_touch_is_asked_for_only_by_a_living_session_in_use(desk: Desk) -> None:
    session = unread(desk)
    desk.now += 3600

    assert ledger_of(session).touch(desk.now) is None
    assert session["a"] == 1
    assert ledger_of(session).touch(desk.now) is not None
    session.destroy()
    assert ledger_of(session).touch(desk.now) is None


def test_one_use_asks_for_one_touch_at_most(desk: Desk) -> None:
    session = unread(desk)
    assert session["a"] == 1
    assert ledger_of(session).touch(desk.now) is None  # not due yet

    desk.now += 3600

    assert ledger_of(session).touch(desk.now) is None


@pytest.mark.parametrize(
    ("outcome", "is_due_again"),
    [
        (Committed(0), False),
        (Gone(), False),
        (StoreUnavailable("full"), True),
        (SaveOutcomeUnknown("no answer"), True),
    ],
)
def test_a_touch_is_due_again_after_an_error(
    desk: Desk, outcome: Outcome, is_due_again: bool
) -> None:
    session = unread(desk)
    desk.now += 3600
    assert session["a"] == 1
    touch = ledger_of(session).touch(desk.now)
    assert touch is not None
    assert session["a"] == 1
    assert ledger_of(session).touch(desk.now) is None  # one is on its way

    ledger_of(session).settle_touch(touch, outcome)

    assert session["a"] == 1
    assert (ledger_of(session).touch(desk.now) is not None) is is_due_again


def test_the_answer_to_a_touch_of_a_session_before_this_one_changes_nothing(desk: Desk) -> None:
    session = unread(desk)
    desk.now += 3600
    assert session["a"] == 1
    touch = ledger_of(session).touch(desk.now)
    assert touch is not None
    session.destroy()
    session["a"] = 2
    life = ledger_of(session).life
    assert life is not None

    ledger_of(session).settle_touch(touch, Committed(0))

    assert life.expires == 0.0


@pytest.mark.parametrize("state", IN_STATE)
def test_its_repr_says_its_state(desk: Desk, state: str) -> None:
    session = IN_STATE[state](desk)

    life = ledger_of(session).life
    handle = "" if life is None else f" {life.handle}"
    assert repr(ledger_of(session)) == f"<session{handle} {ledger_of(session).state.value}>"
    assert repr(session).startswith(f"<Session {ledger_of(session).state.value}")


def test_whether_something_is_unsaved_is_known_without_loading(desk: Desk) -> None:
    session = unread(desk)
    loads = desk.loads
    assert not ledger_of(session).unsaved
    assert desk.loads == loads

    assert session["b"] == [2]
    assert ledger_of(session).unsaved  # what was handed out may have changed


def test_a_session_too_large_by_a_lowered_limit_can_be_made_smaller() -> None:
    desk = Desk()
    id = desk.begun(a="x" * 100)
    desk.config = SessionConfig(max_size=50)
    session = desk.exchange(id)

    session["a"] = "x" * 90

    assert desk.commit(ledger_of(session)).error is None
    assert desk.stored(id) == {"a": "x" * 90}


def test_an_empty_flight_lands_at_once(desk: Desk) -> None:
    session = live(desk)

    desk.answer(session, ledger_of(session).pause(), *[])

    assert ledger_of(session).flight is None


def test_an_outcome_for_another_epoch_means_that_the_id_is_not_ours_to_send(desk: Desk) -> None:
    session = live(desk)
    session["c"] = 1
    ledger_of(session).seal(desk.now)

    desk.answer(session, desk.take(session), Committed(5))

    assert ledger_of(session).cookie_order is CookieOrder.LEAVE
    assert ledger_of(session).touch(desk.now + 3600) is None


def test_reading_again_what_others_ended_says_so(desk: Desk) -> None:
    session = live(desk)
    other = desk.exchange(session.id)
    other.destroy()
    desk.commit(ledger_of(other))

    with pytest.raises(SessionGone):
        desk.refresh_now(session)
    assert state_of(session) == "VOID"
