"""Values and keys that nobody means well: refused by name, in little time and room, or stored."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from minisession import (
    SessionConfig,
    SessionManager,
    SessionTooLarge,
    UnstorableValue,
)
from minisession._core.session import Session
from minisession.stores.memory import MemoryStore
from minisession.stores.sqlite import SQLiteStore

# What a value becomes is decided without waiting: one backend is enough.
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

MIB = 1 << 20
LIMIT = 100_000  # bytes that a session may have here; below, what must not be written is far more


def layers(wrap: Callable[[Any], Any], count: int, core: Any = 0) -> Any:
    """Wrap a value in containers, many times."""
    for _ in range(count):
        core = wrap(core)
    return core


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryStore | SQLiteStore:
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "sessions.db")


# --- small in memory, and gigabytes when written ------------------------------------------------

BOMBS: dict[str, Callable[[], Any]] = {
    "lists": lambda: layers(lambda inner: [inner] * 10, 9),
    "tuples": lambda: layers(lambda inner: (inner,) * 10, 50),
    "dicts": lambda: layers(lambda inner: {"a": inner, "b": inner}, 99),
    "a tuple in a set": lambda: [{layers(lambda inner: (inner,) * 10, 5)}],
    "one text many times": lambda: ["x" * LIMIT] * LIMIT,
    "one key many times": lambda: [{"x" * LIMIT: 1}] * LIMIT,
    "one number many times": lambda: [1 << 4 * LIMIT] * LIMIT,
    "one bytes many times": lambda: {str(n): b"x" * LIMIT for n in range(1000)},
    "one text in a set": lambda: {(n, "x" * LIMIT) for n in range(1000)},
}
MOST = 64 * LIMIT  # bytes of memory: some copies of what the limit allows


def peak_of(attempt: Callable[[], Any]) -> int:
    """The most memory that something took which must be refused for its size, in bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(SessionTooLarge, match=f"max_size={LIMIT}"):
            attempt()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bomb", BOMBS)
async def test_what_would_take_gigabytes_is_refused_before_it_does(bomb: str) -> None:
    value = BOMBS[bomb]()
    config = SessionConfig(max_size=LIMIT)
    async with SessionManager("memory://", config) as sessions, sessions.open() as one:
        one["cart"] = ["tea"]

        assert peak_of(lambda: one.set("cart", value)) < MOST
        assert one.all() == {"cart": ["tea"]}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_inside_a_value_it_is_refused_by_the_save(bomb: str) -> None:
    config = SessionConfig(max_size=LIMIT)
    async with SessionManager("memory://", config) as sessions, sessions.open() as one:
        one["cart"] = ["tea"]
        await one.save()
        one["cart"].append(BOMBS[bomb]())

        with pytest.raises(SessionTooLarge, match=r'session\["cart"\]: .* more than'):
            await one.save()

        assert one.all() == {"cart": ["tea"]}
        await one.save()


async def test_a_value_that_was_too_large_already_may_become_smaller() -> None:
    store = MemoryStore()
    async with SessionManager(store) as sessions, sessions.open() as one:
        one["log"] = ["line"] * 1000
        await one.save()
        id = one.id

    async with SessionManager(store, SessionConfig(max_size=100)) as sessions:
        async with sessions.open(id) as one:
            one["log"] = ["line"] * 900
            with pytest.raises(SessionTooLarge, match=r"max_size=100"):
                one["log"] = ["line"] * 901
        async with sessions.open(id) as one:
            assert one["log"] == ["line"] * 900


# --- large ---------------------------------------------------------------------------------------

LARGE: dict[str, Callable[[], Any]] = {
    "text": lambda: "x" * 10 * MIB,
    "wide text": lambda: "\N{SNOWMAN}" * (10 * MIB // 3),
    "bytes": lambda: bytes(10 * MIB),
    "numbers": lambda: [10**600] * (10 * MIB // 600),
    "dict": lambda: {f"key {n}": "x" * 1000 for n in range(10 * 1024)},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LARGE)
async def test_ten_mebibytes_come_back_as_they_were_where_they_are_allowed(
    kind: str, store: MemoryStore | SQLiteStore
) -> None:
    value = LARGE[kind]()
    async with SessionManager(store, SessionConfig(max_size=32 * MIB)) as sessions:
        async with sessions.open() as one:
            one["large"] = value
            await one.save()
            id = one.id
        async with sessions.open(id) as one:
            assert one["large"] == value


@pytest.mark.parametrize("kind", LARGE)
async def test_ten_mebibytes_are_refused_where_they_are_not(kind: str) -> None:
    async with SessionManager("memory://") as sessions, sessions.open() as one:
        with pytest.raises(SessionTooLarge, match="max_size=1048576"):
            one["large"] = LARGE[kind]()

        assert not one.is_started


# --- deep ----------------------------------------------------------------------------------------

WRAPS: dict[str, Callable[[Any], Any]] = {
    "lists": lambda inner: [inner],
    "tuples": lambda inner: (inner,),
    "dicts": lambda inner: {"a": inner},
    "mixed": lambda inner: [({"a": inner},)],
}


@pytest.mark.parametrize("levels", [200, 100_000])
@pytest.mark.parametrize("wrap", WRAPS)
async def test_what_is_too_deep_is_refused_at_the_assignment_and_at_the_save(
    wrap: str, levels: int
) -> None:
    value = layers(WRAPS[wrap], levels)
    async with SessionManager("memory://") as sessions, sessions.open() as one:
        with pytest.raises(UnstorableValue, match="more than 100 containers in one another"):
            one["deep"] = value
        one["cart"] = []
        await one.save()
        one["cart"].append(value)

        with pytest.raises(UnstorableValue, match="more than 100 containers in one another"):
            await one.save()

        assert one.all() == {"cart": []}


@pytest.mark.parametrize("levels", [200, 100_000])
@pytest.mark.parametrize(("left", "right"), [(b"[", b"]"), (b'{"a":', b"}")])
async def test_what_is_stored_too_deep_is_damage_and_left_as_it_is(
    tmp_path: Path, levels: int, left: bytes, right: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "sessions.db"
    async with SessionManager(f"sqlite:///{path}") as sessions, sessions.open() as one:
        one["deep"] = 0
        await one.save()
        id = one.id
    spoilt = left * levels + b"0" + right * levels
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE item SET data = ?", (spoilt,))

    async with SessionManager(f"sqlite:///{path}") as sessions, sessions.open(id) as one:
        assert not one.is_started

    assert "is damaged, counts as unknown and stays as it is" in caplog.text
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT data FROM item").fetchall() == [(spoilt,)]


# --- of hostile kinds ----------------------------------------------------------------------------


class Key(StrEnum):
    CART = "cart"


class Endless:
    """Says that it can be iterated over, and never ends."""

    def __iter__(self) -> Any:
        while True:
            yield 0


class Pretender:
    """Says that it is a str, and that it is equal to everything."""

    @property  # type: ignore[misc]
    def __class__(self) -> type[str]:  # type: ignore[override]
        return str

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("cart")


class Growing(dict[str, object]):
    """Has one more key whenever somebody looks at it."""

    def items(self) -> Any:
        self[str(len(self))] = 0
        return super().items()


class Executing:
    """Would run code when pickled and unpickled."""

    def __reduce__(self) -> Any:
        raise AssertionError("somebody pickles")


def endless_generator() -> Any:
    while True:
        yield 0


HOSTILE: dict[str, Callable[[], Any]] = {
    "endless": Endless,
    "a generator": endless_generator,
    "a pretender": Pretender,
    "growing": Growing,
    "executing": Executing,
    "a function": lambda: endless_generator,
    "a class": lambda: Endless,
    "a module": lambda: sqlite3,
    "a view of memory": lambda: memoryview(b"x"),
    "a set of what changes": lambda: {Executing()},
    "a key that is no text": lambda: {Pretender(): 1},
    "a key that is no Unicode": lambda: {"\udc80": 1},
    "a key that is an enum": lambda: {Key.CART: 1},
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("inside", [False, True], ids=["itself", "inside"])
async def test_a_value_of_a_hostile_kind_is_refused_and_changes_nothing(
    kind: str, inside: bool
) -> None:
    value = HOSTILE[kind]()
    async with SessionManager("memory://") as sessions, sessions.open() as one:
        one["cart"] = ["tea"]
        with pytest.raises(UnstorableValue, match=r'session\["cart"\]'):
            one["cart"] = ["tea", {"a": (value,)}] if inside else value

        assert one.all() == {"cart": ["tea"]}


@pytest.mark.parametrize(
    "key",
    [None, 0, 1.5, True, (), b"cart", Key.CART, frozenset(), Pretender(), Ellipsis, "\ud800"],
    ids=lambda key: type(key).__name__,
)
async def test_only_text_is_a_key(key: Any) -> None:
    async with SessionManager("memory://") as sessions, sessions.open() as one:
        one["cart"] = ["tea"]
        with pytest.raises(UnstorableValue):
            one[key] = 1

        assert one.all() == {"cart": ["tea"]}


KEYS = [
    "",
    " ",
    "\0",
    "a\0b",
    "'; DROP TABLE item; --",
    "~list",
    "~",
    "é",
    "e\u0301",
    "\N{SNOWMAN}",
]
KEYS += ["__class__", "id", "handle", "x" * 10_000, "\r\nSet-Cookie: a=b", "\u202e"]


async def test_every_text_is_a_key(store: MemoryStore | SQLiteStore) -> None:
    values = {key: number for number, key in enumerate(KEYS)}
    async with SessionManager(store) as sessions:
        async with sessions.open() as one:
            one.update(values)
            await one.save()
            id = one.id
        async with sessions.open(id) as one:
            assert one.all() == values
            for key in KEYS:
                del one[key]
        async with sessions.open(id) as one:
            assert one.all() == {}


async def test_a_key_that_only_equals_a_text_leaves_a_text_behind(
    store: MemoryStore | SQLiteStore,
) -> None:
    async with SessionManager(store) as sessions:
        async with sessions.open() as one:
            one["cart"] = ["tea"]
            await one.save()
            one[Key.CART].append("milk")
            id = one.id
        async with sessions.open(id) as one:
            assert {type(key) for key in _seen_by(one)} == {str}
            assert one["cart"] == ["tea", "milk"]
            del one[Key.CART]
        async with sessions.open(id) as one:
            assert one.is_started
            assert one.all() == {}


def _seen_by(one: Session) -> list[str]:
    return [*one, *one.all(), *one.keys()]
