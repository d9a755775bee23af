"""What the store's answers mean for a session, and for what was written meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from minisession import (
    Conflict,
    SaveOutcomeUnknown,
    SaveTimeout,
    Session,
    SessionClosed,
    SessionTooLarge,
    StoreError,
    StoreUnavailable,
)
from minisession._core.books import CookieOrder, State
from minisession._core.journal import Kind, Life, Segment
from minisession._core.plan import Flight, as_flight
from minisession._core.settle import settle
from minisession.abc import Committed, Create, Destroy, Gone, Outcome, Write

from .lab import Desk, ledger_of

HELD = {"a": 1, "b": [2]}
DOWN = StoreUnavailable("down")
UNKNOWN = SaveOutcomeUnknown("no answer")
TOO_LARGE = SessionTooLarge("too large")


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def session(desk: Desk) -> Session:
    """One that lives, with data."""
    session = desk.exchange(desk.begun(**HELD))
    assert session.is_started
    return session


def state(session: Session) -> State:
    return ledger_of(session).state


def changes(flight: Flight) -> list[type]:
    return [type(leg.change) for leg in flight.legs]


# --- Committed -----------------------------------------------------------------------------------


def test_what_is_committed_is_no_longer_unsaved(desk: Desk, session: Session) -> None:
    session["c"] = 3

    flight = desk.answer(session, desk.take(session))

    assert ledger_of(session).flight is None
    assert (flight.error, flight.gone) == (None, False)
    assert not ledger_of(session).journal
    assert ledger_of(session).stored == {"a": b"1", "b": b"[2]", "c": b"3"}


def test_what_was_written_during_the_flight_is_unsaved(desk: Desk, session: Session) -> None:
    session["c"] = 3
    flight = desk.take(session)
    session["c"] = 4
    desk.answer(session, flight)

    assert session["c"] == 4
    assert desk.commit(ledger_of(session)).error is None
    assert desk.stored(session.id or "") == HELD | {"c": 4}


def test_a_change_inside_during_the_flight_is_found_by_the_next_look(
    desk: Desk, session: Session
) -> None:
    session["b"].append(3)
    flight = desk.take(session)
    session["b"].append(4)
    desk.answer(session, flight)

    desk.commit(ledger_of(session))

    assert desk.stored(session.id or "") == {"a": 1, "b": [2, 3, 4]}


def test_writes_after_a_new_id_count_in_the_new_epoch(desk: Desk, session: Session) -> None:
    session.regenerate()
    desk.commit(ledger_of(session))
    session.clear()
    session["user"] = "ada"

    assert not desk.commit(ledger_of(session)).gone
    assert desk.stored(session.id or "") == {"user": "ada"}


def test_the_end_of_a_session_destroyed_meanwhile_changes_nothing_here(
    desk: Desk, session: Session
) -> None:
    id = session.id or ""
    session["c"] = 3
    flight = desk.take(session)
    session.destroy()
    session["message"] = "bye"

    desk.answer(session, flight)

    assert dict(session) == {"message": "bye"}
    desk.commit(ledger_of(session))
    assert desk.stored(id) is None
    assert desk.stored(session.id or "") == {"message": "bye"}


@pytest.mark.parametrize("renew", [True, False])
def test_what_the_store_accepted_is_known_of_the_session(
    desk: Desk, session: Session, *, renew: bool
) -> None:
    ledger = ledger_of(session)
    assert ledger.life is not None
    before = ledger.life.cookie_until
    desk.now += 4 * 3600 if renew else 3600  # less than an idle timeout is left, or more
    ledger.seal(desk.now)
    session.principal = "ada"

    desk.answer(session, desk.take(session), Committed(0))

    assert (ledger.life.cookie_until > before) is renew
    assert ledger.life.expires == desk.now + desk.config.idle
    assert ledger.life.principal == "ada"


@pytest.mark.parametrize("name", ["ada", None])
def test_the_principal_is_the_stored_one_again_when_another_is_refused(
    desk: Desk, session: Session, name: str | None
) -> None:
    session.principal = "grace"
    desk.commit(ledger_of(session))
    session.principal = name
    desk.commit(ledger_of(session))
    session.principal = "eve"

    desk.answer(session, desk.take(session), TOO_LARGE)

    assert session.principal == name


def test_an_answer_too_few_is_a_mistake_of_the_caller(desk: Desk, session: Session) -> None:
    session["c"] = 3

    with pytest.raises(ValueError, match="shorter"):
        settle(ledger_of(session), desk.take(session), [])


# --- Gone ----------------------------------------------------------------------------------------


def test_gone_voids_everything_that_is_unsaved(desk: Desk, session: Session) -> None:
    session["c"] = 3
    flight = desk.take(session)
    session["d"] = 4
    session.regenerate()
    session["b"].append(3)

    desk.answer(session, flight, Gone())

    assert flight.gone
    assert state(session) is State.VOID
    assert not ledger_of(session).journal
    assert not ledger_of(session).unsaved
    assert session["c"] == 3, "what it held is still shown"


def test_a_session_found_gone_never_turns_into_a_new_one(desk: Desk, session: Session) -> None:
    session["c"] = 3
    desk.answer(session, desk.take(session), Gone())

    session["d"] = 4

    assert not ledger_of(session).journal
    assert session.id is None
    ledger_of(session).seal(desk.now)
    assert ledger_of(session).cookie_order is CookieOrder.LEAVE


def test_only_its_own_destroy_makes_a_session_found_ended_start_anew(
    desk: Desk, session: Session
) -> None:
    session["c"] = 3
    desk.answer(session, desk.take(session), Gone())

    session.destroy()
    session["message"] = "bye"

    assert dict(session) == {"message": "bye"}
    assert desk.commit(ledger_of(session)).error is None
    assert desk.stored(session.id or "") == {"message": "bye"}


def test_a_session_that_others_gave_another_id_is_theirs_and_is_not_destroyed(
    desk: Desk, session: Session
) -> None:
    session["c"] = 3
    desk.answer(session, desk.take(session), Gone(replaced=True))

    session.destroy()
    session["message"] = "bye"

    assert not ledger_of(session).journal
    ledger_of(session).seal(desk.now)
    assert ledger_of(session).cookie_order is CookieOrder.LEAVE


def test_destroying_what_others_have_destroyed_is_done(desk: Desk, session: Session) -> None:
    session.destroy()
    session["message"] = "bye"
    ending = desk.take(session)
    assert changes(ending) == [Destroy]

    desk.answer(session, ending, Gone())
    beginning = desk.take(session)
    assert changes(beginning) == [Create]
    desk.answer(session, beginning, Committed(0))

    assert not ending.gone
    assert dict(session) == {"message": "bye"}
    assert session.is_started


def test_destroying_what_others_have_given_a_new_id_voids_all(desk: Desk, session: Session) -> None:
    session.destroy()
    session["message"] = "bye"

    flight = desk.answer(session, desk.take(session), Gone(replaced=True), Committed(0))

    assert flight.gone
    assert state(session) is State.VOID
    session["e"] = 5
    assert session.id is None
    assert not ledger_of(session).journal


def test_a_write_that_was_gone_before_the_session_was_destroyed_here_voids_nothing_new(
    desk: Desk, session: Session
) -> None:
    session["c"] = 3
    flight = desk.take(session)
    session.destroy()
    session["message"] = "bye"

    desk.answer(session, flight, Gone())

    assert dict(session) == {"message": "bye"}
    second = desk.commit(ledger_of(session))
    assert second.error is None
    assert session.is_started


def test_a_write_that_a_new_id_made_void_voids_all_that_came_after(
    desk: Desk, session: Session
) -> None:
    session["c"] = 3
    flight = desk.take(session)
    session.destroy()
    session["message"] = "bye"

    desk.answer(session, flight, Gone(replaced=True))

    assert state(session) is State.VOID
    session["again"] = 1
    assert session.id is None
    ledger_of(session).seal(desk.now)
    assert ledger_of(session).cookie_order is CookieOrder.LEAVE


# --- certainly not stored ------------------------------------------------------------------------


@pytest.mark.parametrize("error", [DOWN, SaveTimeout("withdrawn")])
def test_what_was_not_taken_is_kept_for_the_next_save(
    desk: Desk, session: Session, error: StoreError
) -> None:
    session["c"] = 3
    session.principal = "ada"

    flight = desk.answer(session, desk.take(session), error)

    assert flight.error is error
    assert session == HELD | {"c": 3}
    assert session.principal == "ada"
    assert desk.commit(ledger_of(session)).error is None
    assert desk.stored(session.id or "") == HELD | {"c": 3}


def test_what_was_not_taken_is_void_if_the_session_was_cleared_meanwhile(
    desk: Desk, session: Session
) -> None:
    session["c"] = 3
    flight = desk.take(session)
    session.clear()
    session["d"] = 4
    desk.answer(session, flight, DOWN)

    desk.commit(ledger_of(session))

    assert desk.stored(session.id or "") == {"d": 4}


def test_of_what_was_not_taken_all_is_kept_in_order(desk: Desk, session: Session) -> None:
    first, second = Life("first", "s", stored=True), Life("second", "s")
    segments = [Segment(Kind.DESTROY, first), Segment(Kind.CREATE, second)]

    desk.answer(session, as_flight(segments, desk.config, desk.now), DOWN, DOWN)

    assert ledger_of(session).journal.segments == segments


def test_what_was_not_taken_goes_before_what_was_written_meanwhile(
    desk: Desk, session: Session
) -> None:
    session.update(c=3, d=3)
    flight = desk.take(session)
    session["d"] = 4
    del session["c"]
    desk.answer(session, flight, DOWN)

    desk.commit(ledger_of(session))

    assert desk.stored(session.id or "") == HELD | {"d": 4}


def test_a_start_that_was_not_taken_is_tried_again_as_a_start(desk: Desk) -> None:
    session = desk.exchange()
    session["a"] = 1
    flight = desk.take(session)
    session["b"] = 2
    session.regenerate()
    session["c"] = 3
    desk.answer(session, flight, DOWN)

    again = desk.take(session)

    assert changes(again) == [Create]
    desk.answer(session, again)
    assert desk.stored(session.id or "") == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize("answered_first", [True, False])
def test_a_start_that_was_not_taken_and_then_destroyed_leaves_nothing(
    desk: Desk, *, answered_first: bool
) -> None:
    session = desk.exchange()
    session["a"] = 1
    flight = desk.take(session)
    if answered_first:
        desk.answer(session, flight, DOWN)
        session.destroy()
        assert not ledger_of(session).journal, "the store knows nothing of it"
    else:
        session.destroy()
        desk.answer(session, flight, DOWN)

    desk.commit(ledger_of(session))

    assert not desk.store._rows
    assert not ledger_of(session).journal


def test_a_logout_that_was_not_taken_goes_first_again(desk: Desk, session: Session) -> None:
    id = session.id or ""
    session.destroy()
    session["message"] = "bye"
    desk.answer(session, desk.take(session), DOWN)

    assert ledger_of(session).flushable
    desk.commit(ledger_of(session), issuing=False)

    assert desk.stored(id) is None
    again = desk.take(session)
    assert changes(again) == [Create]


def test_writes_before_a_new_id_can_be_handed_over_without_it_again(
    desk: Desk, session: Session
) -> None:
    session["before"] = 1
    session.regenerate()
    desk.answer(session, desk.take(session), DOWN)

    desk.commit(ledger_of(session), issuing=False)

    record = desk.store.load_nowait(session.handle or "", desk.now)
    assert record is not None
    assert "before" in record.items
    assert record.epoch == 0


def test_two_new_ids_in_a_row_are_one(desk: Desk, session: Session) -> None:
    old = session.id or ""
    session.regenerate()
    flight = desk.take(session)
    session.regenerate()
    desk.answer(session, flight, DOWN)

    again = desk.take(session)
    assert changes(again) == [Write]
    desk.answer(session, again)

    assert desk.stored(session.id or "") == HELD
    assert desk.stored(old) is None


def test_the_old_secret_is_back_when_two_new_ids_are_given_up(desk: Desk, session: Session) -> None:
    old = session.id
    session.regenerate()
    flight = desk.take(session)
    session.regenerate()
    desk.answer(session, flight, DOWN)

    assert ledger_of(session).abandon(everything=False)

    assert session.id == old


# --- refused for good ----------------------------------------------------------------------------


def test_what_was_refused_is_forgotten_and_the_next_save_says_so(
    desk: Desk, session: Session
) -> None:
    session["c"] = 3
    session.principal = "ada"
    flight = desk.take(session)
    session["d"] = 4

    desk.answer(session, flight, TOO_LARGE)

    assert flight.error is ledger_of(session).refused is TOO_LARGE
    assert repr(flight.refused) == repr(TOO_LARGE)  # raised in another task: another instance
    assert session == HELD | {"d": 4}
    assert session.principal is None


def test_a_start_that_was_refused_never_was(desk: Desk) -> None:
    session = desk.exchange()
    session["a"] = 1
    flight = desk.take(session)
    session["b"] = 2

    desk.answer(session, flight, TOO_LARGE)

    assert not session.is_started
    assert dict(session) == {}
    assert not ledger_of(session).journal
    session["c"] = 3
    assert desk.commit(ledger_of(session)).error is None


def test_a_new_id_that_was_refused_is_the_old_one_again(desk: Desk, session: Session) -> None:
    old = session.id
    session.regenerate()
    session["user"] = "ada"

    desk.answer(session, desk.take(session), TOO_LARGE)

    assert session.id == old
    assert session == HELD


def test_a_new_id_that_was_refused_while_another_waits_leaves_that_one(
    desk: Desk, session: Session
) -> None:
    old = session.id
    session.regenerate()
    flight = desk.take(session)
    session.regenerate()
    newest = session.id
    desk.answer(session, flight, TOO_LARGE)

    assert session.id == newest
    ledger_of(session).abandon(everything=False)
    assert session.id == old


def test_what_was_refused_of_a_session_destroyed_meanwhile_is_nothing(
    desk: Desk, session: Session
) -> None:
    session["c"] = 3
    flight = desk.take(session)
    session.destroy()

    desk.answer(session, flight, TOO_LARGE)

    assert ledger_of(session).refused is None
    assert dict(session) == {}


def test_a_logout_that_was_refused_is_said(desk: Desk, session: Session) -> None:
    error = StoreError("read-only")
    session.destroy()

    desk.answer(session, desk.take(session), error)

    assert ledger_of(session).refused is error


# --- in doubt ------------------------------------------------------------------------------------


def test_in_doubt_writes_are_refused_until_it_is_read_again(desk: Desk, session: Session) -> None:
    session["c"] = 3
    flight = desk.take(session)
    desk.apply([leg.change for leg in flight.legs])
    desk.answer(session, flight, UNKNOWN)

    assert state(session) is State.UNKNOWN
    with pytest.raises(SaveOutcomeUnknown, match=r"await session.refresh\(\)"):
        session["d"] = 4
    desk.refresh_now(session)
    session["d"] = 4
    desk.commit(ledger_of(session))
    assert desk.stored(session.id or "") == HELD | {"c": 3, "d": 4}


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("began_here", [True, False])
def test_a_new_id_in_doubt_is_found_out_and_its_cookie_sent_only_if_it_is_this_exchanges(
    desk: Desk, session: Session, *, stored: bool, began_here: bool
) -> None:
    if began_here:
        session = desk.exchange()
        session.update(HELD)
        desk.commit(ledger_of(session))
    old = session.id
    session.regenerate()
    new = session.id
    flight = desk.take(session)
    if stored:
        desk.apply([leg.change for leg in flight.legs])
    desk.answer(session, flight, UNKNOWN)

    desk.refresh_now(session)

    assert session.id == (new if stored else old)
    ledger_of(session).seal(desk.now)
    if ledger_of(session).journal:
        desk.commit(ledger_of(session))
    sends = ledger_of(session).cookie_order is CookieOrder.SET
    assert sends is (stored or began_here)


def test_a_start_in_doubt_that_was_made_is_ours_to_send(desk: Desk) -> None:
    session = desk.exchange()
    session["a"] = 1
    flight = desk.take(session)
    desk.apply([leg.change for leg in flight.legs])
    desk.answer(session, flight, UNKNOWN)

    desk.refresh_now(session)

    ledger_of(session).seal(desk.now)
    desk.commit(ledger_of(session))
    assert ledger_of(session).cookie_order is CookieOrder.SET


def test_a_start_in_doubt_that_was_not_made_is_made_by_the_next_save(desk: Desk) -> None:
    session = desk.exchange()
    session["a"] = 1
    flight = desk.take(session)
    session["b"] = 2
    session.regenerate()
    desk.answer(session, flight, UNKNOWN)

    ledger_of(session).was_not_created()
    session["c"] = 3

    assert session == {"a": 1, "b": 2, "c": 3}
    assert changes(desk.answer(session, desk.take(session))) == [Create]
    assert desk.stored(session.id or "") == {"a": 1, "b": 2, "c": 3}


def test_a_start_in_doubt_that_was_not_made_and_then_destroyed_leaves_nothing(desk: Desk) -> None:
    session = desk.exchange()
    session["a"] = 1
    desk.answer(session, desk.take(session), UNKNOWN)
    ledger_of(session).was_not_created()

    session.destroy()

    assert not ledger_of(session).journal


@pytest.mark.parametrize(("look_first", "epoch"), [(True, 0), (False, None)])
def test_destroying_names_the_epoch_only_if_it_is_certain(
    desk: Desk, session: Session, *, look_first: bool, epoch: int | None
) -> None:
    session["c"] = 3
    desk.answer(session, desk.take(session), UNKNOWN)
    if look_first:
        desk.refresh_now(session)
    handle = session.handle or ""

    session.destroy()

    assert [leg.change for leg in desk.take(session).legs] == [Destroy(handle, epoch)]


def test_a_new_id_in_doubt_while_another_waits_is_found_out(desk: Desk, session: Session) -> None:
    session.regenerate()
    flight = desk.take(session)
    session.regenerate()
    newest = session.id
    desk.apply([leg.change for leg in flight.legs])
    desk.answer(session, flight, UNKNOWN)

    desk.refresh_now(session)

    assert session.id == newest
    desk.commit(ledger_of(session))
    assert desk.stored(newest or "") == HELD


def test_a_logout_in_doubt_is_said_by_the_next_save(desk: Desk, session: Session) -> None:
    session.destroy()

    desk.answer(session, desk.take(session), UNKNOWN)

    assert ledger_of(session).refused is UNKNOWN
    assert state(session) is State.NONE


# --- proposals -----------------------------------------------------------------------------------


def propose(desk: Desk, session: Session, key: str, value: Any) -> Flight:
    ledger = ledger_of(session)
    return ledger.propose(key, ledger.stored.get(key), value, desk.now)


def test_a_proposal_is_shown_once_it_has_landed(desk: Desk, session: Session) -> None:
    flight = propose(desk, session, "n", [1])
    assert "n" not in session

    desk.answer(session, flight)

    assert session["n"] == [1]
    assert desk.stored(session.id or "") == HELD | {"n": [1]}


def test_a_proposal_does_not_hide_what_was_written_meanwhile(desk: Desk, session: Session) -> None:
    flight = propose(desk, session, "n", 1)
    session["n"] = 2
    desk.answer(session, flight)

    assert session["n"] == 2
    desk.commit(ledger_of(session))
    assert desk.stored(session.id or "") == HELD | {"n": 2}


@pytest.mark.parametrize(
    "outcome", [Conflict("raced", b"5"), DOWN, TOO_LARGE], ids=lambda o: type(o).__name__
)
def test_a_proposal_that_fails_leaves_nothing(
    desk: Desk, session: Session, outcome: Outcome
) -> None:
    flight = desk.answer(session, propose(desk, session, "n", 1), outcome)

    assert flight.error is outcome
    assert session == HELD
    assert not ledger_of(session).journal
    assert ledger_of(session).refused is None


def test_a_proposal_in_doubt_refuses_writes(desk: Desk, session: Session) -> None:
    desk.answer(session, propose(desk, session, "n", 1), UNKNOWN)

    assert state(session) is State.UNKNOWN


def test_a_proposal_to_what_this_exchange_has_destroyed_is_gone_and_voids_nothing(
    desk: Desk, session: Session
) -> None:
    flight = propose(desk, session, "n", 1)
    session.destroy()

    desk.answer(session, flight, Gone())

    assert flight.gone
    assert state(session) is State.NONE
    desk.commit(ledger_of(session))
    assert ledger_of(session).cookie_order is CookieOrder.DELETE


# --- closed --------------------------------------------------------------------------------------


def keep(session: Session) -> None:
    session["c"] = 3


def start_over(session: Session) -> None:
    session.destroy()
    session["c"] = 3


@pytest.mark.parametrize("use", [keep, start_over])
@pytest.mark.parametrize(
    "outcome",
    [Committed(0), Gone(), Gone(replaced=True), DOWN, TOO_LARGE, UNKNOWN],
    ids=str,
)
def test_no_late_answer_opens_a_closed_session_again(
    desk: Desk, session: Session, use: Callable[[Session], None], outcome: Outcome
) -> None:
    use(session)
    flight = desk.take(session)
    ledger_of(session).close()

    desk.answer(session, flight, *[outcome] * len(flight.legs))

    assert ledger_of(session).flight is None
    assert flight.gone is isinstance(outcome, Gone)
    assert flight.error is (outcome if isinstance(outcome, Exception) else None)
    assert not ledger_of(session).journal
    assert not ledger_of(session).stored
    with pytest.raises(SessionClosed):
        session.get("a")
