"""What clients of a session note becomes a history, and the model says which histories can be.

Each log is written by hand: `log` numbers the events, in the order in which they happened.
"""

from __future__ import annotations

from typing import Any

import pytest

from .checker import judge
from .log import Event, history
from .model import Stored

Note = tuple[Any, ...]

FIRST, SECOND = "first id", "second id"
START = {"a": "0"}


def log(*notes: Note) -> list[Event]:
    return [(float(time), note[0], note[1], tuple(note[2:])) for time, note in enumerate(notes)]


def is_possible(notes: list[Note], **how: Any) -> bool:
    return bool(judge(history(log(*notes), **how), Stored.begun(FIRST, START)))


def opened(visit: int, label: str | None = FIRST, **found: str) -> list[Note]:
    return [(visit, "open", label), (visit, "answer", "found", found or START)]


def left(visit: int, label: str | None = FIRST) -> list[Note]:
    return [(visit, "leave"), (visit, "answer", "done", label)]


def saved(visit: int, label: str | None = FIRST) -> list[Note]:
    return [(visit, "save"), (visit, "answer", "done", label)]


def left_gone(visit: int) -> list[Note]:
    return [(visit, "leave"), (visit, "answer", "gone")]


def login(visit: int) -> list[Note]:
    return [(visit, "regenerate", SECOND, False), (visit, "put", "user", "u"), *left(visit, SECOND)]


POSSIBLE: dict[str, list[Note]] = {
    "a write is read": [*opened(1), (1, "put", "a", "1"), *left(1), *opened(2, a="1")],
    "an unsaved write is not read": [*opened(1), (1, "put", "a", "1"), *opened(2), *left(1)],
    "two updates": [
        *opened(1),
        (1, "update", "a", "x"),
        *opened(2),
        (2, "update", "a", "y"),
        (1, "answer", "done", FIRST, "0.y"),
        (2, "answer", "done", FIRST, "0"),
        *opened(3, a="0.y.x"),
    ],
    "nobody finds what was revoked": [
        (9, "revoke"),
        (9, "answer", "done", True),
        (1, "open", FIRST),
        (1, "answer", "nothing"),
    ],
    "a write after the end is void": [
        *opened(1),
        (9, "revoke"),
        (9, "answer", "done", True),
        (1, "put", "a", "1"),
        *left_gone(1),
        (2, "open", None),
        (2, "answer", "gone"),
    ],
    "a late write counts": [
        *opened(1), *opened(2), *login(2), (1, "put", "a", "1"), *left(1),
        *opened(3, SECOND, a="1", user="u"),
    ],
    "a late write of the same key is void": [
        *opened(1), *opened(2), *login(2), (1, "put", "user", "me"), *left_gone(1),
        *opened(3, SECOND, a="0", user="u"),
    ],
    "a late clear is void": [
        *opened(1), *opened(2), *login(2), (1, "clear"), *left_gone(1),
        *opened(3, SECOND, a="0", user="u"),
    ],
    "a replaced id is stale": [
        *opened(2), *login(2), (3, "open", FIRST), (3, "answer", "stale"),
    ],
    "the second of two logins is void": [
        *opened(1), *opened(2), *login(2),
        (1, "regenerate", "third id", False), *left_gone(1), *opened(3, SECOND, a="0", user="u"),
    ],
    "who destroys what was destroyed hears nothing": [
        *opened(1), *opened(2), (1, "destroy", True), *left(1, None),
        (2, "destroy", True), *left(2, None),
    ],
    "what was in doubt may be stored": [
        *opened(1), (1, "put", "a", "1"), (1, "save"), (1, "answer", "unknown"),
        (1, "refresh"), (1, "answer", "found", {"a": "1"}), *left(1), *opened(2, a="1"),
    ],
    "what was in doubt may be lost": [
        *opened(1), (1, "put", "a", "1"), (1, "save"), (1, "answer", "unknown"),
        (1, "refresh"), (1, "answer", "found", START), *left(1), *opened(2),
    ],
    "what is unsaved is shown on top": [
        *opened(1), (1, "put", "b", "1"), *opened(2), (2, "put", "a", "2"), *left(2),
        (1, "refresh"), (1, "answer", "found", {"a": "2", "b": "1"}), *left(1),
        *opened(3, a="2", b="1"),
    ],
    "who is cancelled does not regenerate": [
        *opened(1), (1, "put", "a", "1"), (1, "pause"),
        (1, "regenerate", SECOND, False), (1, "pause"), (1, "left"), *opened(2, a="1"),
    ],
}  # fmt: skip

IMPOSSIBLE: dict[str, list[Note]] = {
    "a saved write is lost": [*opened(1), (1, "put", "a", "1"), *left(1), *opened(2)],
    "two updates get the same": [
        *opened(1),
        (1, "update", "a", "x"),
        *opened(2),
        (2, "update", "a", "y"),
        (1, "answer", "done", FIRST, "0"),
        (2, "answer", "done", FIRST, "0"),
    ],
    "the ended session is found": [(9, "revoke"), (9, "answer", "done", True), *opened(1)],
    "it ends twice": [
        *((9, "revoke"), (9, "answer", "done", True)),
        *((8, "revoke"), (8, "answer", "done", True)),
    ],
    "a write after the end is stored": [
        *opened(1), (9, "revoke"), (9, "answer", "done", True), (1, "put", "a", "1"), *left(1),
    ],
    "it is gone and lives": [*opened(1), (1, "put", "a", "1"), *left_gone(1), *opened(2, a="1")],
    "half of a change is read": [
        *opened(1), (1, "put", "a", "1"), (1, "put", "b", "1"), (1, "pause"),
        *opened(2, a="1"), *left(1),
    ],
    "half of a login is read": [
        *opened(1), (1, "regenerate", SECOND, False), (1, "put", "user", "u"), (1, "pause"),
        (1, "put", "a", "1"), *opened(2, None, a="0", user="u"), *left(1, SECOND),
    ],
    "a late write takes the place of the login's": [
        *opened(1), *opened(2), *login(2), (1, "put", "user", "me"), *left(1),
    ],
    "half of a late write counts": [
        *opened(1), *opened(2), *login(2), (1, "put", "user", "me"), (1, "put", "a", "1"),
        *left_gone(1), *opened(3, SECOND, a="1", user="u"),
    ],
    "a replaced id is good": [*opened(2), *login(2), *opened(3, FIRST, a="0", user="u")],
    "two logins": [
        *opened(1), *opened(2), *login(2), (1, "regenerate", "third id", False),
        *left(1, "third id"),
    ],
    "what was destroyed is read": [*opened(1), (1, "destroy", True), *left(1, None), *opened(2)],
    "writes of one client change places": [
        *opened(1), (1, "put", "a", "1"), (1, "pause"), (1, "put", "b", "2"), (1, "pause"),
        *opened(2, a="0", b="2"), *left(1),
    ],
    "a write that was in doubt appears after its end": [
        *opened(1), (1, "put", "a", "1"), (1, "save"), (1, "answer", "unknown"),
        (1, "refresh"), (1, "answer", "found", START), *saved(1), *opened(2), *opened(3, a="1"),
    ],
    "who is cancelled loses what was written before": [
        *opened(1), (1, "put", "a", "1"), (1, "pause"), (1, "left"), *opened(2),
    ],
    "who is cancelled regenerates": [
        *opened(1), (1, "regenerate", SECOND, False), (1, "pause"), (1, "left"),
        *opened(2, SECOND),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", POSSIBLE)
def test_what_design_allows_is_possible(name: str) -> None:
    assert is_possible(POSSIBLE[name])


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_design_forbids_is_impossible(name: str) -> None:
    assert not is_possible(IMPOSSIBLE[name])


def test_what_a_killed_process_had_on_its_way_may_have_happened_before_its_death() -> None:
    killed = [*opened(1), (1, "put", "a", "1"), (1, "save")]

    assert is_possible([*killed, *opened(2)])
    assert is_possible([*killed, *opened(2, a="1")])
    assert is_possible([*killed, *opened(2), *opened(3, a="1")])
    assert not is_possible([*killed, *opened(2), *opened(3, a="1")], died=len(killed) - 0.5)


def test_a_new_id_that_a_killed_process_had_not_handed_over_is_none() -> None:
    killed: list[Note] = [*opened(1), (1, "regenerate", SECOND, False), (1, "pause")]

    assert not is_possible([*killed, *opened(2, SECOND)])


def test_without_a_grace_no_late_write_counts() -> None:
    late = [*opened(1), *opened(2), *login(2), (1, "put", "a", "1"), *left(1)]
    start = Stored.begun(FIRST, START, graceful=False)

    assert not judge(history(log(*late)), start)
