"""The plan: what a journal becomes for the store, and when sessions, cookies and graces end."""

from __future__ import annotations

from dataclasses import fields

import pytest

from minisession import SessionConfig, StoreUnavailable
from minisession._core.journal import Kind, Life, Segment
from minisession._core.plan import (
    TOUCH_BELOW,
    Flight,
    as_change,
    as_flight,
    as_proposal,
    cookie_end,
    cookie_is_due,
    deadline,
    touch_is_due,
)
from minisession._ids import hash_secret
from minisession.abc import Create, Destroy, Expect, Rotation, Touch, Write

NOW = 1_800_000_000.0
IDLE = 600.0  # seconds
CONFIG = SessionConfig(cache_expire=IDLE / 60, rotation_grace=7, max_size=1234)
ABSOLUTE = SessionConfig(cache_expire=IDLE / 60, absolute_timeout=20)  # minutes


@pytest.fixture
def life() -> Life:
    return Life("handle", "secret", epoch=3, stored=True, created=NOW - 60, expires=NOW + IDLE)


# --- one change for each life --------------------------------------------------------------------


def test_neighbours_of_one_life_become_one_change(life: Life) -> None:
    segments = [
        Segment(Kind.WRITE, life, items={"a": b"1", "b": b"1"}),
        Segment(Kind.ROTATE, life, items={"b": None, "c": b"2"}),
    ]

    [leg] = as_flight(segments, CONFIG, NOW).legs

    assert isinstance(leg.change, Write)
    assert leg.change.items == {"a": b"1", "b": None, "c": b"2"}
    assert leg.change.rotation is not None
    assert leg.parts == segments


def test_each_life_has_a_change_of_its_own(life: Life) -> None:
    second = Life("second", "another")

    flight = as_flight([Segment(Kind.DESTROY, life), Segment(Kind.CREATE, second)], CONFIG, NOW)

    assert [type(leg.change) for leg in flight.legs] == [Destroy, Create]
    assert [leg.change.handle for leg in flight.legs] == ["handle", "second"]
    assert (flight.error, flight.gone) == (None, False)


def test_a_write_names_its_epoch_and_renews_the_idle_timeout(life: Life) -> None:
    segment = Segment(Kind.WRITE, life, items={"a": b"1", "b": None})

    assert as_change(segment, CONFIG, NOW) == Write(
        "handle", epoch=3, expires=NOW + IDLE, max_size=1234, items={"a": b"1", "b": None}
    )


def test_a_write_clears_and_names_the_principal_if_asked_to(life: Life) -> None:
    segment = Segment(Kind.WRITE, life, clear=True, principal="ada")

    change = as_change(segment, CONFIG, NOW)

    assert isinstance(change, Write)
    assert (change.clear, change.principal) == (True, "ada")


def test_a_rotation_carries_only_the_hash_of_the_new_secret_and_the_end_of_the_grace(
    life: Life,
) -> None:
    segment = Segment(Kind.ROTATE, life, previous_loads=True)

    change = as_change(segment, CONFIG, NOW)

    assert isinstance(change, Write)
    assert change.rotation == Rotation(hash_secret("secret"), NOW + 7, previous_loads=True)
    assert change.cookie_until == NOW + 2 * IDLE


@pytest.mark.parametrize(("renew", "until"), [(True, NOW + 2 * IDLE), (False, None)])
def test_a_write_says_how_long_the_cookie_lasts_only_if_it_is_sent(
    life: Life, *, renew: bool, until: float | None
) -> None:
    change = as_change(Segment(Kind.WRITE, life, renew_cookie=renew), CONFIG, NOW)

    assert isinstance(change, Write)
    assert change.cookie_until == until


def test_a_creation_stores_what_is_left_of_the_writes(life: Life) -> None:
    life.created = None
    segment = Segment(Kind.CREATE, life, items={"a": b"1", "b": None}, principal="ada")

    change = as_change(segment, CONFIG, NOW)

    assert change == Create(
        "handle",
        hash_secret("secret"),
        {"a": b"1"},
        created=NOW,
        expires=NOW + IDLE,
        cookie_until=NOW + 2 * IDLE,
        max_size=1234,
        principal="ada",
    )
    assert life.created == NOW


def test_a_creation_for_nobody_has_no_principal(life: Life) -> None:
    change = as_change(Segment(Kind.CREATE, life, principal=""), CONFIG, NOW)

    assert isinstance(change, Create)
    assert change.principal is None


def test_destroying_names_the_epoch_that_it_knows(life: Life) -> None:
    assert as_change(Segment(Kind.DESTROY, life), CONFIG, NOW) == Destroy("handle", 3)


def test_a_proposal_is_a_compare_and_set_of_one_key(life: Life) -> None:
    [leg] = as_proposal(life, Expect("n", b"1"), b"2", CONFIG, NOW).legs

    assert leg.proposal
    assert leg.segment.kind is Kind.WRITE
    assert leg.parts == [leg.segment]
    assert leg.change == Write(
        "handle",
        3,
        expires=NOW + IDLE,
        max_size=1234,
        items={"n": b"2"},
        expect=Expect("n", b"1"),
    )


@pytest.mark.parametrize("kind", [Kind.WRITE, Kind.ROTATE])
def test_no_write_moves_the_end_beyond_the_absolute_one(life: Life, kind: Kind) -> None:
    life.created = NOW - 1100
    [leg] = as_proposal(life, Expect("n", b"1"), b"2", ABSOLUTE, NOW).legs

    for change in (leg.change, as_change(Segment(kind, life), ABSOLUTE, NOW)):
        assert isinstance(change, Write)
        assert change.expires == NOW + 100


def test_a_session_that_begins_ends_at_its_absolute_end(life: Life) -> None:
    config = SessionConfig(cache_expire=10, absolute_timeout=5)  # minutes

    change = as_change(Segment(Kind.CREATE, life), config, NOW)

    assert isinstance(change, Create)
    assert change.expires == NOW + 300


def test_an_error_that_is_taken_from_a_flight_is_kept_no_longer() -> None:
    error = StoreUnavailable("down")
    flight = Flight([], error=error)

    assert flight.take_error() is error
    assert flight.error is None


def test_no_change_has_a_field_for_a_secret_that_could_be_used() -> None:
    names = {f.name for kind in (Create, Write, Touch, Destroy, Rotation) for f in fields(kind)}

    assert "id" not in names
    assert {f.name: f.type for f in fields(Rotation)}["secret"] == "bytes"
    assert {f.name: f.type for f in fields(Create)}["secret"] == "bytes"


# --- when things end -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "created", "end"),
    [
        (CONFIG, NOW - 99_999, NOW + IDLE),
        (CONFIG, None, NOW + IDLE),
        (ABSOLUTE, None, NOW + IDLE),
        (ABSOLUTE, NOW, NOW + IDLE),
        (ABSOLUTE, NOW - 600, NOW + IDLE),
        (ABSOLUTE, NOW - 601, NOW + IDLE - 1),
        (ABSOLUTE, NOW - 1200, NOW),
        (ABSOLUTE, NOW - 1300, NOW - 100),
    ],
)
def test_a_session_ends_when_idle_and_at_its_absolute_end(
    life: Life, config: SessionConfig, created: float | None, end: float
) -> None:
    life.created = created

    assert deadline(life, config, NOW) == end


@pytest.mark.parametrize(
    ("config", "created", "end"),
    [
        (CONFIG, NOW - 60, NOW + 2 * IDLE),
        (CONFIG, None, NOW + 2 * IDLE),
        (ABSOLUTE, None, NOW + 1200),
        (ABSOLUTE, NOW, NOW + 1200),
        (ABSOLUTE, NOW - 900, NOW + 300),
        (SessionConfig(cookie_lifetime=99), NOW, NOW + 99),
        (SessionConfig(cookie_lifetime=None), NOW, 0.0),
    ],
)
def test_a_cookie_ends_when_its_session_can_at_the_latest(
    life: Life, config: SessionConfig, created: float | None, end: float
) -> None:
    life.created = created

    assert cookie_end(life, config, NOW) == end


@pytest.mark.parametrize(
    ("left", "due"),
    [
        (2 * IDLE, False),
        (IDLE, False),
        (IDLE - 1, True),
        (0, True),
        (-1, True),
    ],
)
def test_a_cookie_is_due_when_less_than_one_idle_timeout_is_left(
    life: Life, left: float, *, due: bool
) -> None:
    life.cookie_until = NOW + left

    assert cookie_is_due(life, CONFIG, NOW) is due


def test_a_cookie_is_not_due_again_and_again_before_an_absolute_end(life: Life) -> None:
    life.created = NOW - 1100
    life.cookie_until = NOW + 100  # all that the session can have

    assert not cookie_is_due(life, ABSOLUTE, NOW)


@pytest.mark.parametrize("spoiler", ["outdated", "secret", "lifetime", "browser"])
def test_a_cookie_is_never_due_where_it_is_not_ours_to_send(life: Life, spoiler: str) -> None:
    life.cookie_until = NOW - 1
    life.outdated = spoiler == "outdated"
    life.secret = None if spoiler == "secret" else life.secret
    lifetime = {"lifetime": 60, "browser": None}.get(spoiler, 0)

    assert not cookie_is_due(life, SessionConfig(cookie_lifetime=lifetime), NOW)


@pytest.mark.parametrize(
    ("left", "due"),
    [(IDLE, False), (TOUCH_BELOW * IDLE, False), (TOUCH_BELOW * IDLE - 0.001, True), (1, True)],
)
def test_a_touch_is_due_when_a_twentieth_of_the_idle_timeout_is_used_up(
    life: Life, left: float, *, due: bool
) -> None:
    life.expires = NOW + left

    expected = Touch("handle", 3, NOW + IDLE) if due else None
    assert touch_is_due(life, CONFIG, NOW) == expected


@pytest.mark.parametrize("spoiler", ["outdated", "unstored", "reads do not count"])
def test_a_touch_is_never_due_where_it_would_not_count(life: Life, spoiler: str) -> None:
    life.expires = NOW + 1
    life.outdated = spoiler == "outdated"
    life.stored = spoiler != "unstored"
    config = SessionConfig(cache_expire=10, refresh_on_read=spoiler != "reads do not count")

    assert touch_is_due(life, config, NOW) is None


def test_a_touch_that_could_not_move_the_end_is_not_due(life: Life) -> None:
    life.created = NOW - 1100
    life.expires = NOW + 100  # the absolute end

    assert touch_is_due(life, ABSOLUTE, NOW) is None
