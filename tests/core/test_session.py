"""`Session` as a mapping: it does what a dict does, and says what it does not."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, MutableMapping
from datetime import date
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisession import Session, SessionConfig, SessionTooLarge, UnstorableValue

from .lab import Desk, at_once, ledger_of


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def session(desk: Desk) -> Session:
    return desk.exchange()


# --- the same as a dict --------------------------------------------------------------------------

keys = st.sampled_from(["a", "b", "c", "", "é", "with space"])
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(keys, inner, max_size=2), st.tuples(inner)
    ),
    max_leaves=3,
)
pairs = st.lists(st.tuples(keys, values), max_size=3)
lookups = st.one_of(keys, st.sampled_from([0, None, 1.5, ("a",), b"a"]))
operations = st.one_of(
    st.tuples(st.just("__getitem__"), lookups),
    st.tuples(st.just("__contains__"), lookups),
    st.tuples(st.just("__delitem__"), lookups),
    st.tuples(st.just("__setitem__"), keys, values),
    st.tuples(st.just("get"), lookups),
    st.tuples(st.just("get"), lookups, values),
    st.tuples(st.just("pop"), lookups),
    st.tuples(st.just("pop"), lookups, values),
    st.tuples(st.just("setdefault"), keys),
    st.tuples(st.just("setdefault"), keys, values),
    st.tuples(st.just("update"), pairs),
    st.tuples(st.just("update"), st.dictionaries(keys, values, max_size=2)),
    st.tuples(st.just("popitem")),
    st.tuples(st.just("clear")),
    st.tuples(st.just("__len__")),
    st.tuples(st.just("__eq__"), st.dictionaries(keys, values, max_size=2)),
)


def outcome(mapping: Any, operation: tuple[Any, ...]) -> Any:
    """What an operation returns, or the error that it raises, to compare."""
    name, *arguments = copy.deepcopy(operation)
    try:
        return getattr(mapping, name)(*arguments)
    except KeyError as error:
        return "KeyError", None if name == "popitem" else error.args


@given(st.lists(operations, max_size=30), st.booleans())
def test_it_does_what_a_dict_does(steps: list[tuple[Any, ...]], reload: bool) -> None:
    desk = Desk()
    session, model = desk.exchange(), dict[str, Any]()

    for step in steps:
        assert outcome(session, step) == outcome(model, step), step
        assert list(session.items()) == list(model.items())

    desk.commit(ledger_of(session))
    if session.is_started:
        again = desk.exchange(session.id) if reload else session
        assert again == model
        assert {key: type(value) for key, value in again.items()} == {
            key: type(value) for key, value in model.items()
        }


def test_it_is_a_mutable_mapping(session: Session) -> None:
    assert isinstance(session, MutableMapping)
    assert not isinstance(session, dict)


def test_it_has_every_method_of_a_mutable_mapping() -> None:
    assert set(dir(MutableMapping)) <= set(dir(Session))


def test_its_views_are_live(session: Session) -> None:
    keys, values, items = session.keys(), session.values(), session.items()

    session["a"] = 1

    assert (list(keys), list(values), list(items)) == (["a"], [1], [("a", 1)])
    assert keys & {"a", "b"} == {"a"}
    assert ("a", 1) in items
    assert 1 in values


def test_it_can_be_unpacked_and_copied_into_a_dict(session: Session) -> None:
    session.update(a=1, b=[2])

    assert {**session} == dict(session) == {"a": 1, "b": [2]}
    assert {**session, "c": 3} == {"a": 1, "b": [2], "c": 3}


def test_it_can_be_matched(session: Session) -> None:
    session["user"] = "ada"

    match session:
        case {"user": user}:
            assert user == "ada"
        case _:
            pytest.fail("not matched")


@pytest.mark.parametrize("other", [{"a": 1}, {"a": 1.0}, {"a": True}])
def test_it_equals_a_dict_with_equal_values_from_both_sides(
    session: Session, other: Mapping[str, Any]
) -> None:
    session["a"] = 1

    assert session == other
    assert other == session


@pytest.mark.parametrize("other", [{}, {"a": 2}, {"b": 1}, [("a", 1)], None, "a"])
def test_it_differs_from_everything_else(session: Session, other: object) -> None:
    session["a"] = 1

    assert session != other
    assert other != session


def test_two_sessions_with_equal_values_are_equal(desk: Desk) -> None:
    one, two = desk.exchange(), desk.exchange()
    one["a"] = two["a"] = 1

    assert one == two


def test_it_has_no_hash(session: Session) -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(session)


def test_it_is_false_when_empty(session: Session) -> None:
    assert not session
    session["a"] = 1
    assert session


def test_it_can_be_changed_while_it_is_walked(session: Session) -> None:
    session.update(a=1, b=2)

    for key in session:
        del session[key]

    assert dict(session) == {}


def test_popitem_takes_the_pair_that_was_added_last(session: Session) -> None:
    session.update(a=1, b=2)
    session["a"] = 3

    assert session.popitem() == ("b", 2)
    assert session.popitem() == ("a", 3)
    with pytest.raises(KeyError, match=r"popitem\(\): the session is empty"):
        session.popitem()


def test_setdefault_returns_the_very_value_that_is_kept(session: Session) -> None:
    cart = session.setdefault("cart", [])
    cart.append("apple")

    assert session.setdefault("cart", []) == ["apple"]


@pytest.mark.parametrize("unhashable", [[], {}, set()])
def test_what_has_no_hash_is_no_key_as_in_a_dict(session: Session, unhashable: Any) -> None:
    for use in (
        lambda: session.get(unhashable),
        lambda: session[unhashable],
        lambda: unhashable in session,
        lambda: session.pop(unhashable, None),
    ):
        with pytest.raises(TypeError, match="unhashable"):
            use()


# --- its own interface ---------------------------------------------------------------------------


def test_the_direct_interface_does_what_the_mapping_does(session: Session) -> None:
    session.set("a", 1)

    assert session.has("a")
    assert not session.has("b")
    assert session.get("a") == 1
    session.remove("a")
    assert not session.has("a")


def test_removing_what_is_not_there_is_nothing(session: Session) -> None:
    session.remove("a")

    assert not session.is_started


@pytest.mark.parametrize("key", [0, None, ("a",), b"a"])
def test_a_key_of_another_type_is_not_there(session: Session, key: Any) -> None:
    session["a"] = 1

    assert not session.has(key)
    assert session.get(key, "missing") == "missing"
    session.remove(key)
    with pytest.raises(KeyError):
        session[key]
    with pytest.raises(KeyError):
        del session[key]
    with pytest.raises(KeyError):
        session.pop(key)
    assert dict(session) == {"a": 1}


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("key", [0, None, 1.5, ("a",), b"a", Text("a")])
def test_a_key_of_another_type_is_refused_with_the_line_that_is_right(
    session: Session, key: Any
) -> None:
    writes = (
        lambda: session.__setitem__(key, 1),
        lambda: session.set(key, 1),
        lambda: session.setdefault(key, 1),
        lambda: session.update({key: 1}),
        lambda: session.update([(key, 1)]),
    )
    for write in writes:
        with pytest.raises(UnstorableValue) as refusal:
            write()

        assert f"a key must be a str, not {type(key).__name__}" in str(refusal.value)
        assert f"write session[{str(key)!r}]" in str(refusal.value)
    assert not session.is_started


def test_a_key_that_is_no_unicode_text_is_refused(session: Session) -> None:
    with pytest.raises(UnstorableValue) as refusal:
        session["a\udcff"] = 1

    assert str(refusal.value).startswith(r'session["a\udcff"]: a key with a lone surrogate')
    assert "write key.encode('utf-8', 'replace')" in str(refusal.value)
    assert not session.is_started


@pytest.mark.parametrize("key", ["", "é", "\x00", "\U0001f600", "a" * 1000, "__class__"])
def test_every_unicode_text_is_a_key(desk: Desk, session: Session, key: str) -> None:
    session[key] = 1
    desk.commit(ledger_of(session))

    assert session.id is not None
    assert desk.stored(session.id) == {key: 1}


def test_a_value_that_cannot_be_stored_is_refused_where_it_is_assigned(session: Session) -> None:
    session["a"] = 1

    with pytest.raises(UnstorableValue) as refusal:
        session["a"] = {"b": [0, object()]}

    assert str(refusal.value).startswith('session["a"]["b"][1]: a value of type object')

    assert dict(session) == {"a": 1}


def test_a_value_for_which_there_is_no_room_is_refused_where_it_is_assigned() -> None:
    session = Desk(SessionConfig(max_size=20)).exchange()
    session["a"] = "12345"

    with pytest.raises(SessionTooLarge, match="max_size=20"):
        session["b"] = "1234567890"

    assert dict(session) == {"a": "12345"}
    session["b"] = "1234567"


def test_all_is_a_dict_of_its_own_at_every_depth(session: Session) -> None:
    session["a"] = {"b": [1]}

    copied = session.all()
    copied["a"]["b"].append(2)
    copied["c"] = 3

    assert type(copied) is dict
    assert session == {"a": {"b": [1]}}


def test_all_is_taken_at_one_moment_while_threads_write(session: Session) -> None:
    session.update({str(i): [i] for i in range(200)})
    stop = False

    def write() -> None:
        i = 0
        while not stop:
            session[f"new {i % 500}"] = i
            session.pop(f"new {(i * 7) % 500}", None)
            i += 1

    thread = Thread(target=write)
    thread.start()
    try:
        for _ in range(50):
            assert len(session.all()) >= 200
            list(session.items())
    except KeyError:  # items() of a key that went meanwhile, as of any live view
        pass
    finally:
        stop = True
        thread.join()


# --- update, in both meanings --------------------------------------------------------------------


@pytest.mark.parametrize(
    "update",
    [
        lambda session: session.update({"a": 1}),
        lambda session: session.update([("a", 1)]),
        lambda session: session.update(iter([("a", 1)])),
        lambda session: session.update(a=1),
        lambda session: session.update({"a": 0}, a=1),
    ],
)
def test_update_takes_what_that_of_a_dict_takes(
    session: Session, update: Callable[[Session], None]
) -> None:
    assert update(session) is None  # type: ignore[func-returns-value]
    assert session == {"a": 1}


def test_update_takes_any_name_as_a_keyword(session: Session) -> None:
    session.update(self=1, other=2, fn=3, default=4, key=5)

    assert session == {"self": 1, "other": 2, "fn": 3, "default": 4, "key": 5}


def test_update_takes_another_session(desk: Desk, session: Session) -> None:
    other = desk.exchange()
    other["a"] = 1

    session.update(other)

    assert session == {"a": 1}


@pytest.mark.parametrize(("default", "result"), [({}, None), ({"default": 3}, 3)])
def test_update_with_a_function_is_awaited(
    session: Session, default: dict[str, Any], result: Any
) -> None:
    pending = session.update("n", lambda n: n, **default)

    assert inspect.isawaitable(pending)
    assert inspect.iscoroutine(pending)
    assert at_once(pending) == (ledger_of(session), "n", result)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("n", 5), {}),
        (("n", None), {}),
        (("n",), {"default": 0}),
        (("n", len), {"defualt": 0}),
        (({"n": 1}, len), {}),
        ((Text("n"), len), {}),
    ],
)
def test_update_called_in_neither_way_says_which_ways_there_are(
    session: Session, arguments: tuple[Any, ...], named: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match=r"takes a mapping, .*await session\.update\('visits'"):
        session.update(*arguments, **named)

    assert not session.is_started


def test_saving_and_reading_again_are_awaited(desk: Desk, session: Session) -> None:
    session["a"] = 1
    at_once(session.save())  # type: ignore[arg-type]
    assert session.id is not None
    other = desk.exchange(session.id)
    other["a"] = 2
    at_once(other.save())  # type: ignore[arg-type]

    at_once(session.refresh())  # type: ignore[arg-type]

    assert session == {"a": 2}


@pytest.mark.parametrize("fetch", [Session.__getitem__, Session.get, Session.setdefault])
def test_what_changes_inside_a_value_that_was_fetched_is_saved(
    desk: Desk, fetch: Callable[[Session, str], Any]
) -> None:
    id = desk.begun(cart=["apple"])
    session = desk.exchange(id)

    fetch(session, "cart").append("pear")
    at_once(session.save())  # type: ignore[arg-type]

    assert desk.stored(id) == {"cart": ["apple", "pear"]}


# --- the session as a whole ----------------------------------------------------------------------


def test_reading_starts_nothing(session: Session) -> None:
    reads = [
        session.get("a"),
        "a" in session,
        len(session),
        list(session),
        session.all(),
        session.id,
        session.handle,
        session.principal,
    ]

    assert reads == [None, False, 0, [], {}, None, None, None]
    assert not session.is_started


@pytest.mark.parametrize(
    "use",
    [
        Session.clear,
        Session.regenerate,
        lambda session: session.pop("a", None),
        lambda session: session.remove("a"),
        lambda session: session.update(),
        lambda session: setattr(session, "principal", None),
    ],
)
def test_what_changes_nothing_starts_nothing(session: Session, use: Any) -> None:
    use(session)

    assert not session.is_started
    assert session.id is None


def test_the_first_write_starts_it_under_one_id(session: Session) -> None:
    session["a"] = 1

    assert session.is_started
    assert session.id is not None
    assert session.handle is not None
    assert session.id.split(".")[0] == session.handle
    assert session.id == session.id


@pytest.mark.parametrize("name", ["", 7, b"ada", Text("ada")])
def test_a_principal_is_a_name_or_nobody(session: Session, name: Any) -> None:
    with pytest.raises(UnstorableValue, match=r"assign a str such as \"user:7\", or None"):
        session.principal = name

    assert not session.is_started


def test_a_principal_that_is_no_unicode_text_is_refused_where_it_is_assigned(
    session: Session,
) -> None:
    with pytest.raises(UnstorableValue) as refusal:
        session.principal = "a\udcff"

    assert str(refusal.value).startswith("session.principal: a name with a lone surrogate")
    assert "write name.encode('utf-8', 'replace')" in str(refusal.value)
    assert not session.is_started


def test_a_principal_is_stored_and_taken_back(desk: Desk, session: Session) -> None:
    session["a"] = 1
    session.principal = "user:7"
    assert session.principal == "user:7"
    desk.commit(ledger_of(session))
    assert session.id is not None
    again = desk.exchange(session.id)
    assert again.principal == "user:7"

    again.principal = None

    assert again.principal is None
    desk.commit(ledger_of(again))
    assert desk.exchange(session.id).principal is None


def test_what_is_passive_is_no_activity_until_something_else_is_done(desk: Desk) -> None:
    id = desk.begun(a=1)
    desk.now += 3600
    session = desk.exchange(id)

    with session.passive(), session.passive():
        assert session["a"] == 1
    assert ledger_of(session).touch(desk.now) is None
    with session.passive():
        assert session["a"] == 1
    assert ledger_of(session).touch(desk.now) is None

    assert session["a"] == 1
    assert ledger_of(session).touch(desk.now) is not None


def test_an_error_in_a_passive_block_ends_it(desk: Desk) -> None:
    session = desk.exchange(desk.begun())
    with pytest.raises(ZeroDivisionError), session.passive():
        raise ZeroDivisionError

    assert session["seed"] == 0
    assert ledger_of(session).active


def test_activity_before_a_passive_block_stays_activity(desk: Desk) -> None:
    session = desk.exchange(desk.begun())
    assert session["seed"] == 0

    with session.passive():
        assert session["seed"] == 0

    assert ledger_of(session).active


@pytest.mark.parametrize(
    ("begin", "shown"),
    [
        (lambda desk: desk.exchange(), r"<Session unread>"),
        (lambda desk: desk.exchange(desk.begun()), r"<Session unread>"),
    ],
)
def test_its_repr_says_its_state_and_loads_nothing(desk: Desk, begin: Any, shown: str) -> None:
    session = begin(desk)
    loads = desk.loads

    assert repr(session) == shown
    assert desk.loads == loads


def test_its_repr_shows_handle_and_number_of_keys_of_one_that_lives(session: Session) -> None:
    session.update(a=1, b=2)

    assert repr(session) == f"<Session live handle={session.handle} keys=2>"


def test_it_has_no_attributes_to_lose_things_in(session: Session) -> None:
    with pytest.raises(AttributeError):
        session.modified = True  # type: ignore[attr-defined]


def test_values_come_back_as_what_they_were(desk: Desk, session: Session) -> None:
    value = {"day": date(2026, 1, 2), "set": {1, 2}, "tuple": (1, [2]), "bytes": b"\x00"}
    session["a"] = value
    desk.commit(ledger_of(session))

    assert desk.exchange(session.id)["a"] == value
