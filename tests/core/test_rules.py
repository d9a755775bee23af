"""Who may read a stored session, and which change still counts: the rules, in every combination."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from minisession._core.rules import Standing, admits, create_is_possible, standing
from minisession.abc import Create, Destroy, Expect, Facts, Record, Rotation, Touch, Write

NOW = 1_800_000_000.0
EPOCH = 7
GRACE = 30.0
NEVER = -1

CURRENT, PREVIOUS, OTHER = b"current".ljust(32), b"previous".ljust(32), b"other".ljust(32)


def facts(
    *,
    expired: bool = False,
    in_grace: bool = True,
    previous_loads: bool = False,
    cleared: int = NEVER,
) -> Facts:
    return Facts(
        epoch=EPOCH,
        expires=NOW if expired else NOW + 1,
        grace_until=NOW + GRACE if in_grace else NOW,
        previous_loads=previous_loads,
        cleared=cleared,
    )


WRITE = Write("h", EPOCH, NOW + 60, 1000, items={"k": b"1"})
ROTATION = Rotation(OTHER, NOW + GRACE)

CHANGES: dict[str, Write | Touch | Destroy] = {
    "puts": WRITE,
    "drops": replace(WRITE, items={"k": None}),
    "puts if it is as expected": replace(WRITE, expect=Expect("k", b"0")),
    "renews the cookie": replace(WRITE, cookie_until=NOW + 99),
    "clears": replace(WRITE, items={}, clear=True),
    "clears and puts": replace(WRITE, clear=True),
    "rotates": replace(WRITE, items={}, rotation=ROTATION),
    "rotates and puts": replace(WRITE, rotation=ROTATION),
    "names a principal": replace(WRITE, items={}, principal="ada"),
    "removes the principal": replace(WRITE, items={}, principal=""),
    "touches": Touch("h", EPOCH, NOW + 60),
    "destroys": Destroy("h", EPOCH),
}
PUTS_AND_DROPS = ("puts", "drops", "puts if it is as expected", "renews the cookie")

AGES = {"two before": -2, "one before": -1, "the same": 0, "ahead": 1}
KEY_EPOCHS = {
    "never": NEVER,
    "long before": EPOCH - 2,
    "just before": EPOCH - 1,
    "since": EPOCH,
}
LATE_WRITE = replace(WRITE, epoch=EPOCH - 1)
CLEARED = {"never": NEVER, "before": EPOCH - 1, "since": EPOCH}


def change_of(what: str, age: str) -> Write | Touch | Destroy:
    return replace(CHANGES[what], epoch=EPOCH + AGES[age])


def expected(
    what: str, age: str, key: str, cleared: str, *, in_grace: bool, previous_loads: bool
) -> bool:
    """The rule as DESIGN says it (section 4, Regenerate), for a session that lives."""
    if age == "the same":
        return True
    if age != "one before" or not in_grace:
        return False
    if what == "destroys":
        return previous_loads
    if what not in PUTS_AND_DROPS:
        return False
    return cleared != "since" and key != "since"


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("age", AGES)
def test_a_change_counts_by_its_epoch_and_what_has_happened_since(what: str, age: str) -> None:
    change = change_of(what, age)
    cases = list(product(KEY_EPOCHS, CLEARED, (True, False), (True, False)))

    answers = [
        admits(
            facts(in_grace=grace, previous_loads=loads, cleared=CLEARED[cleared]),
            change,
            NOW,
            {"k": KEY_EPOCHS[key]}.__getitem__,
        )
        for key, cleared, grace, loads in cases
    ]

    assert answers == [
        expected(what, age, key, cleared, in_grace=grace, previous_loads=loads)
        for key, cleared, grace, loads in cases
    ]


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("age", AGES)
def test_no_change_counts_once_the_session_has_expired(what: str, age: str) -> None:
    stored = facts(expired=True, previous_loads=True)

    assert not admits(stored, change_of(what, age), NOW, lambda _: NEVER)


def test_a_session_ends_at_the_very_moment_it_expires() -> None:
    stored = replace(facts(), expires=NOW)

    assert not admits(stored, WRITE, NOW, lambda _: NEVER)
    assert admits(stored, WRITE, NOW - 0.001, lambda _: NEVER)


def test_the_grace_ends_at_the_very_moment_it_says() -> None:
    stored = replace(facts(), grace_until=NOW)

    assert not admits(stored, LATE_WRITE, NOW, lambda _: NEVER)
    assert admits(stored, LATE_WRITE, NOW - 0.001, lambda _: NEVER)


def test_a_late_change_counts_wholly_or_not_at_all() -> None:
    change = replace(LATE_WRITE, items={"untouched": b"1", "written": b"1"})
    epochs = {"untouched": EPOCH - 1, "written": EPOCH}

    assert not admits(facts(), change, NOW, epochs.__getitem__)


def test_revocation_ends_a_session_of_any_epoch() -> None:
    assert admits(facts(in_grace=False), Destroy("h", None), NOW, lambda _: NEVER)


def test_revocation_finds_no_expired_session() -> None:
    assert not admits(facts(expired=True), Destroy("h", None), NOW, lambda _: NEVER)


# --- who may read --------------------------------------------------------------------------------


def record(*, previous: bytes | None = PREVIOUS, loads: bool = False) -> Record:
    return Record(
        handle="h",
        secret=CURRENT,
        epoch=EPOCH,
        items={},
        created=NOW,
        expires=NOW + 60,
        cookie_until=0,
        previous=previous,
        previous_loads=loads,
        grace_until=NOW + GRACE,
    )


@pytest.mark.parametrize(
    ("secret", "stored", "age", "worth"),
    [
        (CURRENT, record(), 0, Standing.CURRENT),
        (CURRENT, record(), 10 * GRACE, Standing.CURRENT),
        (CURRENT, record(previous=None), 0, Standing.CURRENT),
        (PREVIOUS, record(), 0, Standing.STALE),
        (PREVIOUS, record(), GRACE - 0.001, Standing.STALE),
        (PREVIOUS, record(), GRACE, Standing.REUSED),
        (PREVIOUS, record(loads=True), 0, Standing.BORROWED),
        (PREVIOUS, record(loads=True), GRACE - 0.001, Standing.BORROWED),
        (PREVIOUS, record(loads=True), GRACE, Standing.REUSED),
        (OTHER, record(), 0, Standing.STALE),
        (OTHER, record(loads=True), GRACE - 0.001, Standing.STALE),
        (OTHER, record(), GRACE, Standing.WRONG),
        (OTHER, record(loads=True), GRACE, Standing.WRONG),
        (PREVIOUS, record(previous=None), GRACE, Standing.WRONG),
        (b"", record(), GRACE, Standing.WRONG),
    ],
)
def test_a_secret_is_worth_what_the_record_says(
    secret: bytes, stored: Record, age: float, worth: Standing
) -> None:
    assert standing(stored, secret, NOW + age) is worth


@pytest.mark.parametrize(
    ("ends", "existing", "possible"),
    [
        (NOW + 1, None, True),
        (NOW + 1, facts(expired=True), True),
        (NOW + 1, facts(), False),
        (NOW, None, False),
        (NOW - 1, facts(expired=True), False),
    ],
)
def test_a_session_is_created_where_none_lives_and_only_if_it_would(
    ends: float, existing: Facts | None, *, possible: bool
) -> None:
    change = Create("h", CURRENT, {}, NOW, expires=ends, cookie_until=0, max_size=10)

    assert create_is_possible(change, existing, NOW) is possible
