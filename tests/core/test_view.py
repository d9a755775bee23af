"""The view: what is shown, what it weighs, and what has changed inside it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisession._codec import encode
from minisession._core.change import size_of
from minisession._core.view import View, path_of
from minisession.errors import SessionTooLarge, StoreCorrupt, UnstorableValue

MANY = 1_000_000  # bytes


def put(view: View, key: str, value: Any) -> None:
    data = encode(value, key)
    view.put(key, data, value, view.require_room(key, data, 1 << 20))


def viewing(**values: Any) -> View:
    view = View()
    view.show({key: encode(value, key) for key, value in values.items()})
    return view


def weight(view: View) -> int:
    return sum(size_of(key, data) for key, data in view.encoded.items())


def expose(view: View, key: str) -> Any:
    view.exposed.add(key)
    return view.values[key]


def test_it_shows_stored_values_decoded() -> None:
    view = viewing(a=1, b=[1, (2,)])

    assert view.values == {"a": 1, "b": [1, (2,)]}


def test_showing_what_cannot_be_decoded_changes_nothing() -> None:
    view = viewing(a=1)

    with pytest.raises(StoreCorrupt):
        view.show({"a": b"2", "b": b"{"})

    assert view.values == {"a": 1}
    assert view.encoded == {"a": b"1"}
    assert view.size == weight(view)


def test_showing_something_else_ends_the_watch_over_values_handed_out() -> None:
    view = viewing(cart=[1])
    cart = expose(view, "cart")

    view.show({"cart": b"[1]"})
    cart.append(2)

    assert view.changed_inside(MANY) == ({}, None)


# --- weight --------------------------------------------------------------------------------------

operations = st.lists(
    st.tuples(st.sampled_from("abcé"), st.one_of(st.none(), st.text(), st.lists(st.integers())))
)


@given(operations)
def test_the_size_is_always_the_sum_of_what_is_shown(steps: list[tuple[str, Any]]) -> None:
    view = View()

    for key, value in steps:
        if value is not None:
            put(view, key, value)
        elif key in view.values:
            view.drop(key)

        assert view.size == weight(view)


def test_the_size_counts_bytes_not_characters() -> None:
    view = viewing(é="é")

    assert view.size == len("é".encode()) + len('"é"'.encode())


@pytest.mark.parametrize(
    ("shown", "key", "data", "limit", "allowed"),
    [
        ({}, "k", b"1", 2, True),
        ({}, "k", b"12", 2, False),
        ({"k": b"1"}, "k", b"12", 3, True),
        ({"k": b"1"}, "k", b"123", 3, False),
        ({"k": b"1"}, "j", b"1", 4, True),
        ({"k": b"1"}, "j", b"1", 3, False),
        ({"k": b"123456"}, "k", b"123456", 3, True),
        ({"k": b"123456"}, "k", b"12345", 3, True),
        ({"k": b"123456"}, "k", b"1234567", 3, False),
        ({"k": b"123456"}, "j", b"1", 3, False),
    ],
)
def test_there_is_room_up_to_the_limit_and_always_for_less_than_before(
    shown: dict[str, bytes], key: str, data: bytes, limit: int, *, allowed: bool
) -> None:
    view = View()
    view.show(shown)

    if allowed:
        view.require_room(key, data, limit)
    else:
        with pytest.raises(SessionTooLarge):
            view.require_room(key, data, limit)


def test_too_large_names_the_key_both_sizes_and_the_way_out_but_no_value() -> None:
    with pytest.raises(SessionTooLarge) as refusal:
        View().require_room("photo", b'"secret bytes"', 10)

    message = str(refusal.value)
    assert 'session["photo"]' in message
    assert "19 bytes" in message
    assert "max_size=10" in message
    assert "Keep large things elsewhere" in message
    assert "secret bytes" not in message


def test_a_container_that_outgrows_all_room_is_refused_by_its_key_and_the_limit() -> None:
    with pytest.raises(SessionTooLarge) as refusal:
        View().encode("cart", ["secret bytes"] * 1000, 1234)

    message = str(refusal.value)
    assert message.startswith('session["cart"]: the session would have more than 1,234 bytes;')
    assert "max_size=1234" in message
    assert "secret bytes" not in message


def test_a_container_may_stay_as_large_as_it_was_under_a_lowered_limit() -> None:
    cart = ["tea"] * 1000
    view = viewing(cart=cart)

    assert view.encode("cart", cart, 10) == encode(cart, "cart")
    with pytest.raises(SessionTooLarge):
        view.encode("another", cart, 10)


def test_what_cannot_be_encoded_is_named_by_its_path() -> None:
    with pytest.raises(UnstorableValue, match=r'session\["cart"\]\[1\]'):
        View().encode("cart", [1, object()], MANY)


# --- changes inside ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "change"),
    [
        ([1], lambda value: value.append(2)),
        ([[1]], lambda value: value[0].append(2)),
        ({"a": 1}, lambda value: value.update(a=2)),
        ({"a": {"b": [1]}}, lambda value: value["a"]["b"].clear()),
        ({1, 2}, lambda value: value.discard(1)),
        (([1],), lambda value: value[0].append(2)),
        ({"a": 1, "b": 2}, lambda value: value.update(a=value.pop("a"))),  # the order of keys
        ([1], lambda value: value.__setitem__(0, True)),  # equal, and of another type
        ([1], lambda value: value.__setitem__(0, 1.0)),
    ],
)
def test_a_change_inside_is_found_once(value: Any, change: Any) -> None:
    value = deepcopy(value)  # a parameter is the same object in every run of one process
    view = View()
    put(view, "k", value)

    change(view.values["k"])

    assert view.changed_inside(MANY) == ({"k": encode(value, "k")}, None)
    assert view.changed_inside(MANY) == ({}, None)


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1, 2}, ([1],), ()])
def test_what_was_only_looked_at_has_not_changed(value: Any) -> None:
    view = viewing(k=value)
    expose(view, "k")

    assert view.changed_inside(MANY) == ({}, None)


def test_a_change_there_and_back_is_none() -> None:
    view = viewing(k=[1])
    value = expose(view, "k")

    value.append(2)
    value.pop()

    assert view.changed_inside(MANY) == ({}, None)


def test_a_value_that_was_not_handed_out_is_not_looked_at() -> None:
    view = viewing(k=[1])

    view.values["k"].append(2)

    assert view.changed_inside(MANY) == ({}, None)


@pytest.mark.parametrize("value", ["text", 1, 1.5, True, None, b"bytes"])
def test_what_cannot_change_inside_is_not_watched(value: Any) -> None:
    view = View()

    put(view, "k", value)

    assert view.exposed == set()


def test_a_change_inside_that_cannot_be_stored_is_undone_and_the_others_are_noted() -> None:
    view = viewing(good=[1], bad=[1])
    expose(view, "good").append(2)
    expose(view, "bad").append(object())

    changes, error = view.changed_inside(MANY)

    assert changes == {"good": b"[1,2]"}
    assert isinstance(error, UnstorableValue)
    assert 'session["bad"][1]' in str(error)
    assert view.values == {"good": [1, 2], "bad": [1]}
    assert view.size == weight(view)


def test_a_change_inside_that_has_no_room_is_undone() -> None:
    view = viewing(k=[1])
    expose(view, "k").extend([1] * 100)

    changes, error = view.changed_inside(20)

    assert changes == {}
    assert isinstance(error, SessionTooLarge)
    assert view.values == {"k": [1]}


def test_an_undone_value_is_no_longer_the_one_that_was_handed_out() -> None:
    view = viewing(k=[1])
    value = expose(view, "k")
    value.append(object())
    view.changed_inside(MANY)

    value[1:] = [2]

    assert view.changed_inside(MANY) == ({}, None)


def test_a_dropped_value_is_watched_no_longer() -> None:
    view = viewing(k=[1])
    expose(view, "k")

    view.drop("k")

    assert view.exposed == set()


def test_a_value_that_was_dropped_while_it_was_handed_out_is_passed_over() -> None:
    view = viewing(k=[1])
    value = expose(view, "k")
    view.drop("k")
    view.exposed.add("k")  # a thread that read it just before
    value.append(2)

    assert view.changed_inside(MANY) == ({}, None)
    assert view.exposed == set()


def test_a_value_that_a_thread_is_changing_is_left_for_the_next_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view = viewing(k=[1])
    value = expose(view, "k")
    value.append(2)
    looks = iter([b"[1,2]", b"[1,2,3]"])
    monkeypatch.setattr("minisession._core.view.encode", lambda *_: next(looks))

    assert view.changed_inside(MANY) == ({}, None)
    monkeypatch.undo()
    assert view.changed_inside(MANY) == ({"k": b"[1,2]"}, None)


def test_a_container_that_changes_its_size_under_the_look_is_left_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def changes_its_size(*_: object) -> bytes:
        raise RuntimeError("list changed size during iteration")

    view = viewing(k=[1])
    expose(view, "k").append(2)
    monkeypatch.setattr("minisession._core.view.encode", changes_its_size)

    assert view.changed_inside(MANY) == ({}, None)
    monkeypatch.undo()
    assert view.changed_inside(MANY) == ({"k": b"[1,2]"}, None)


def test_a_value_that_another_request_wrote_is_not_watched_until_it_is_handed_out() -> None:
    view = viewing(k=[1])
    expose(view, "k")

    view.put_encoded("k", b"[2]")

    assert view.values == {"k": [2]}
    assert view.exposed == set()
    assert view.size == weight(view)


def test_a_dropped_value_comes_back_as_it_was_handed_out() -> None:
    view = viewing(k=[1])
    value = expose(view, "k")
    value.append(2)

    assert view.drop("k") is value
    assert view.size == 0
    assert view.encoded == {}


def test_messages_name_a_key_as_a_user_writes_it() -> None:
    assert path_of("it's") == 'session["it\'s"]'
