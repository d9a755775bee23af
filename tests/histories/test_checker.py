"""The checker says yes to what one order explains, and no to everything else."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from . import checker
from .checker import Operation, TooHard, judge


@dataclass(frozen=True)
class Write:
    value: int

    def after(self, _state: int) -> Iterable[int]:
        return [self.value]


@dataclass(frozen=True)
class Read:
    value: int

    def after(self, state: int) -> Iterable[int]:
        return [state] if state == self.value else []


@dataclass(frozen=True)
class Add:
    """One more, and the new number is the answer."""

    seen: int

    def after(self, state: int) -> Iterable[int]:
        return [state + 1] if state + 1 == self.seen else []


@dataclass(frozen=True)
class MaybeWrite:
    value: int

    def after(self, state: int) -> Iterable[int]:
        return [self.value, state]


Deed = Write | Read | Add | MaybeWrite
Lane = list[Operation[int]]


def op(called: float, returned: float, deed: Deed) -> Operation[int]:
    return Operation(called, returned, deed)


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([], id="nothing"),
        pytest.param([[op(1, 2, Write(1)), op(3, 4, Read(1))]], id="one client"),
        pytest.param([[op(1, 4, Write(1))], [op(2, 3, Read(0))]], id="read before the write"),
        pytest.param([[op(1, 4, Write(1))], [op(2, 3, Read(1))]], id="read after the write"),
        pytest.param([[op(1, 9, Write(1)), op(2, 9, Write(2))], [op(3, 4, Read(2))]], id="called"),
        pytest.param([[op(1, 5, Add(2))], [op(2, 5, Add(1))]], id="two counters"),
        pytest.param([[op(1, 2, MaybeWrite(1))], [op(3, 4, Read(0))]], id="it did not happen"),
        pytest.param([[op(1, 2, MaybeWrite(1))], [op(3, 4, Read(1))]], id="it happened"),
        pytest.param(
            [[op(1, math.inf, MaybeWrite(1))], [op(3, 4, Read(0)), op(5, 6, Read(1))]],
            id="it happened much later",
        ),
    ],
)
def test_what_one_order_explains_is_linearizable(history: list[Lane]) -> None:
    verdict = judge(history, 0)

    assert verdict
    assert len(verdict.order) == sum(map(len, history))
    assert str(verdict) == "linearizable"


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([[op(1, 2, Write(1))], [op(3, 4, Read(0))]], id="a stale read"),
        pytest.param([[op(1, 2, Write(1))], [op(3, 4, Read(2))]], id="a value from nowhere"),
        pytest.param([[op(1, 9, Add(1))], [op(2, 9, Add(1))]], id="a lost update"),
        pytest.param(
            [[op(1, 9, Write(1))], [op(2, 3, Read(1)), op(4, 5, Read(0))]], id="there and back"
        ),
        pytest.param(
            [[op(1, 9, Write(1)), op(2, 9, Write(2))], [op(3, 4, Read(2)), op(5, 9, Read(1))]],
            id="against the order of its client",
        ),
        pytest.param(
            [[op(1, 2, MaybeWrite(1))], [op(3, 4, Read(0)), op(5, 6, Read(1))]],
            id="it happened after it was over",
        ),
        pytest.param(
            [[op(1, 9, Write(1)), op(2, 3, Write(2))], [op(4, 5, Read(1))]],
            id="what a client did first was not over when the next thing was",
        ),
    ],
)
def test_what_no_order_explains_is_not_linearizable(history: list[Lane]) -> None:
    verdict = judge(history, 0)

    assert not verdict
    assert len(verdict.order) < sum(map(len, history))


def test_a_verdict_says_how_far_it_went_and_where_it_is_stuck() -> None:
    history = [[op(1, 2, Write(1)), op(3, 4, Read(0))]]

    assert str(judge(history, 0)).splitlines() == [
        "possible at most:",
        "  [1 .. 2] Write(value=1)",
        "  then none of:",
        "  [3 .. 4] Read(value=0)",
    ]


def test_a_search_that_is_given_up_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker, "LIMIT", 50)
    history = [[op(1, 9, Write(number))] for number in range(8)] + [[op(1, 9, Read(99))]]

    with pytest.raises(TooHard, match="9 operations, more than 50 situations"):
        judge(history, 0)


# --- against all permutations --------------------------------------------------------------------

deeds = st.one_of(
    st.builds(Write, st.integers(1, 2)),
    st.builds(Read, st.integers(0, 2)),
    st.builds(Add, st.integers(1, 3)),
    st.builds(MaybeWrite, st.integers(1, 2)),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Lane]:
    """Up to six operations of three clients, some of which do not wait for their answers."""
    lanes: list[Lane] = [[], [], []]
    for called in range(draw(st.integers(0, 6))):
        returned = called + draw(st.sampled_from([0.5, 0.5, 1.5, 2.5, math.inf]))
        draw(st.sampled_from(lanes)).append(op(called, returned, draw(deeds)))
    return lanes


def explained_by(order: tuple[tuple[int, int], ...], history: list[Lane]) -> bool:
    """Whether this order of (lane, place) keeps time and lanes, and is possible."""
    for earlier, (lane, place) in enumerate(order):
        for other_lane, other_place in order[earlier + 1 :]:
            if lane == other_lane and other_place < place:
                return False
            if history[other_lane][other_place].returned < history[lane][place].called:
                return False
    states = {0}
    for lane, place in order:
        states = {then for now in states for then in history[lane][place].deed.after(now)}
    return bool(states)


@given(history=histories())
@settings(max_examples=500, deadline=None)
def test_it_agrees_with_all_permutations(history: list[Lane]) -> None:
    places = [(lane, place) for lane, ops in enumerate(history) for place in range(len(ops))]

    explained = any(explained_by(order, history) for order in permutations(places))

    assert bool(judge(history, 0)) is explained
