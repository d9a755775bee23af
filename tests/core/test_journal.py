"""The journal: what becomes one change, what waits for an answer, what goes back and where."""

from __future__ import annotations

from typing import Any

import pytest

from minisession._core.journal import Journal, Kind, Life, Segment, apply, merged


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def life() -> Life:
    return Life("handle", "secret", stored=True)


def shape(journal: Journal) -> list[tuple[str, dict[str, bytes | None]]]:
    return [(segment.kind.value, segment.items) for segment in journal.segments]


# --- collecting ----------------------------------------------------------------------------------


def test_an_empty_journal_is_false_and_gives_nothing(journal: Journal) -> None:
    assert not journal
    assert not journal.flushable
    assert journal.issuing is None
    assert journal.take(issuing=True) == []


def test_writes_of_one_life_collapse_into_one_segment(journal: Journal, life: Life) -> None:
    journal.open_segment(life).items["a"] = b"1"
    journal.open_segment(life).items["a"] = b"2"
    journal.open_segment(life).items["b"] = None

    assert shape(journal) == [("write", {"a": b"2", "b": None})]


@pytest.mark.parametrize("kind", [Kind.CREATE, Kind.ROTATE])
def test_writes_after_an_id_was_issued_travel_with_it(
    journal: Journal, life: Life, kind: Kind
) -> None:
    issuing = journal.append(kind, life)

    assert journal.open_segment(life) is issuing


def test_writes_of_another_life_are_another_segment(journal: Journal, life: Life) -> None:
    journal.open_segment(life)
    journal.open_segment(Life("another", None))

    assert len(journal.segments) == 2


@pytest.mark.parametrize(
    ("pending", "named"),
    [
        ({"k": b"1"}, True),
        ({"k": None}, True),
        ({"other": b"1"}, False),
        ({}, False),
    ],
)
def test_it_knows_which_keys_are_named(
    journal: Journal, life: Life, pending: dict[str, bytes | None], *, named: bool
) -> None:
    journal.open_segment(life).items.update(pending)

    assert journal.names("k") is named


def test_a_clear_names_every_key(journal: Journal, life: Life) -> None:
    journal.open_segment(life).clear = True

    assert journal.names("k")


# --- handing over --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "without_an_answer"),
    [
        ([Kind.WRITE], 1),
        ([Kind.CREATE], 0),
        ([Kind.ROTATE], 0),
        ([Kind.DESTROY], 1),
        ([Kind.WRITE, Kind.ROTATE], 1),
        ([Kind.DESTROY, Kind.CREATE], 1),
        ([Kind.CREATE, Kind.WRITE], 0),
    ],
)
def test_what_issues_an_id_waits_for_an_answer_and_all_after_it_too(
    journal: Journal, life: Life, kinds: list[Kind], without_an_answer: int
) -> None:
    segments = [journal.append(kind, life) for kind in kinds]

    assert journal.flushable is bool(without_an_answer)
    assert journal.take(issuing=False) == segments[:without_an_answer]
    assert journal.take(issuing=True) == segments[without_an_answer:]
    assert not journal


def test_the_last_segment_that_issues_an_id_is_the_one(journal: Journal, life: Life) -> None:
    journal.append(Kind.CREATE, life)
    rotation = journal.append(Kind.ROTATE, life)
    journal.append(Kind.WRITE, life)

    assert journal.issuing is rotation


# --- destroying ----------------------------------------------------------------------------------


def test_destroying_voids_what_is_pending_and_ends_what_is_stored(
    journal: Journal, life: Life
) -> None:
    journal.open_segment(life).items["a"] = b"1"
    journal.append(Kind.ROTATE, life)

    journal.destroy(life)

    assert shape(journal) == [("destroy", {})]


def test_destroying_what_was_never_stored_leaves_nothing(journal: Journal) -> None:
    unstored = Life("handle", "secret")
    journal.append(Kind.CREATE, unstored)

    journal.destroy(unstored)

    assert not journal


def test_destroying_one_life_leaves_the_others(journal: Journal, life: Life) -> None:
    journal.append(Kind.DESTROY, life)
    second = Life("second", "secret")
    journal.append(Kind.CREATE, second)

    journal.destroy(second)

    assert [segment.life for segment in journal.segments] == [life]


# --- putting back --------------------------------------------------------------------------------


def segment(kind: Kind, life: Life, **items: Any) -> Segment:
    return Segment(kind, life, items=items)


@pytest.mark.parametrize("kind", [Kind.WRITE, Kind.CREATE, Kind.ROTATE])
def test_what_comes_back_goes_before_what_was_written_meanwhile(
    journal: Journal, life: Life, kind: Kind
) -> None:
    journal.append(Kind.WRITE, life).items.update(a=b"2", b=b"2")

    journal.restore([segment(kind, life, a=b"1", c=b"1")])

    assert shape(journal) == [(kind.value, {"a": b"2", "c": b"1", "b": b"2"})]


def test_what_comes_back_keeps_its_order(journal: Journal, life: Life) -> None:
    second = Life("second", "secret")

    journal.restore([segment(Kind.DESTROY, life), segment(Kind.CREATE, second, a=b"1")])

    assert shape(journal) == [("destroy", {}), ("create", {"a": b"1"})]


def test_what_was_written_before_a_new_id_stays_before_it(journal: Journal, life: Life) -> None:
    journal.append(Kind.ROTATE, life).items["b"] = b"2"

    journal.restore([segment(Kind.WRITE, life, a=b"1")])

    assert shape(journal) == [("write", {"a": b"1"}), ("rotate", {"b": b"2"})]


def test_a_creation_that_comes_back_to_a_new_id_is_still_a_creation(
    journal: Journal, life: Life
) -> None:
    journal.append(Kind.ROTATE, life).items["b"] = b"2"

    journal.restore([segment(Kind.CREATE, life, a=b"1")])

    assert shape(journal) == [("create", {"a": b"1", "b": b"2"})]


def test_two_new_ids_are_one_which_replaces_what_the_store_has(
    journal: Journal, life: Life
) -> None:
    second = journal.append(Kind.ROTATE, life)
    second.replaced_secret = "never stored"
    first = segment(Kind.ROTATE, life)
    first.replaced_secret = "stored"

    journal.restore([first])

    assert [s.replaced_secret for s in journal.segments] == ["stored"]


@pytest.mark.parametrize(
    ("first", "second", "loads"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_the_replaced_id_goes_on_loading_only_if_both_replacements_let_it(
    life: Life, first: bool, second: bool, *, loads: bool
) -> None:
    one = Segment(Kind.ROTATE, life, previous_loads=first)
    two = Segment(Kind.ROTATE, life, previous_loads=second)

    assert merged(one, two).previous_loads is loads


@pytest.mark.parametrize("loads", [True, False])
@pytest.mark.parametrize("rotation_first", [True, False])
def test_writes_change_nothing_of_a_rotation_that_they_are_merged_with(
    life: Life, *, loads: bool, rotation_first: bool
) -> None:
    rotation = Segment(Kind.ROTATE, life, previous_loads=loads, replaced_secret="old")
    write = Segment(Kind.WRITE, life)

    both = merged(rotation, write) if rotation_first else merged(write, rotation)

    assert (both.kind, both.previous_loads, both.replaced_secret) == (Kind.ROTATE, loads, "old")


# --- two as one ----------------------------------------------------------------------------------


def clearing(life: Life, **items: Any) -> Segment:
    return Segment(Kind.WRITE, life, clear=True, items=items)


@pytest.mark.parametrize("first_clears", [True, False])
@pytest.mark.parametrize("second_clears", [True, False])
def test_two_segments_as_one_do_what_they_do_one_after_the_other(
    life: Life, *, first_clears: bool, second_clears: bool
) -> None:
    first = Segment(Kind.WRITE, life, first_clears, {"a": b"1", "b": None, "c": b"1", "d": b"1"})
    second = Segment(Kind.WRITE, life, second_clears, {"a": b"2", "b": b"2", "c": None})
    stored = {"a": b"0", "b": b"0", "c": b"0", "z": b"0"}
    apart, together = dict(stored), dict(stored)

    apply(first, apart)
    apply(second, apart)
    apply(merged(first, second), together)

    assert together == apart


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [(None, None, None), ("a", None, "a"), (None, "b", "b"), ("a", "b", "b"), ("a", "", "")],
)
def test_the_last_name_of_a_principal_counts(
    life: Life, first: str | None, second: str | None, both: str | None
) -> None:
    one, two = (
        Segment(Kind.WRITE, life, principal=first),
        Segment(Kind.WRITE, life, principal=second),
    )

    assert merged(one, two).principal == both


def test_a_cookie_that_is_to_be_renewed_stays_so(life: Life) -> None:
    renewing, plain = Segment(Kind.WRITE, life, renew_cookie=True), Segment(Kind.WRITE, life)

    assert merged(renewing, plain).renew_cookie
    assert merged(plain, renewing).renew_cookie
    assert not merged(plain, plain).renew_cookie


def test_dropping_a_key_that_is_not_there_changes_nothing(life: Life) -> None:
    items = {"a": b"1"}

    apply(Segment(Kind.WRITE, life, items={"b": None}), items)

    assert items == {"a": b"1"}
