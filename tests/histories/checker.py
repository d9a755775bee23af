"""Can what several clients saw be explained by one operation happening after the other?

It owns the search for such an order and knows nothing of sessions: what an operation does is
said by the operation. An order is legal if every client's operations keep their own order, if what
had returned before something else was called comes before it, and if every step is possible. That
is linearizability, after Wing and Gong (https://doi.org/10.1006/jpdc.1993.1015), with the memory
of Lowe (https://doi.org/10.1002/cpe.3928): where the same operations led to the same state, what
can follow is the same.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

State = TypeVar("State", bound=Hashable)
_S = TypeVar("_S", bound=Hashable)

LIMIT = 300_000
"""Situations to look at: some ten seconds. A history that needs more must be made smaller."""


class Deed(Protocol[_S]):
    """What an operation did, with the answer that was seen."""

    def after(self, state: _S, /) -> Iterable[_S]:
        """Return the states that it can lead to; none if its answer was impossible in `state`.

        Several if the answer does not tell; the same state if it may not have happened.
        """
        ...


@dataclass(frozen=True, slots=True)
class Operation(Generic[State]):
    """A deed that happened at one moment between `called` and `returned`."""

    called: float
    returned: float
    deed: Deed[State]

    def __str__(self) -> str:
        return f"[{self.called:.10g} .. {self.returned:.10g}] {self.deed}"


History = Sequence[Sequence[Operation[State]]]
"""The operations of each client, in its own order. A client may call before the last returned."""


class TooHard(Exception):
    """The search was given up: nothing is known of the history."""


@dataclass(frozen=True, slots=True)
class Verdict(Generic[State]):
    """The longest legal order that was found, and which operations could not follow it."""

    order: list[Operation[State]]
    stuck: list[Operation[State]]

    def __bool__(self) -> bool:
        return not self.stuck

    def __str__(self) -> str:
        if self:
            return "linearizable"
        lines = ["possible at most:", *map(str, self.order), "then none of:", *map(str, self.stuck)]
        return "\n  ".join(lines)


@dataclass(frozen=True, slots=True)
class _Situation(Generic[State]):
    """So many operations of each client have happened, and led to this state."""

    done: tuple[int, ...]
    state: State
    before: _Situation[State] | None = None
    last: Operation[State] | None = None

    def order(self) -> list[Operation[State]]:
        operations = []
        situation: _Situation[State] | None = self
        while situation is not None and situation.last is not None:
            operations.append(situation.last)
            situation = situation.before
        return operations[::-1]


def judge(history: History[State], start: State) -> Verdict[State]:
    """Search for a legal order of all operations.

    Raises:
        TooHard: there are too many orders.
    """
    lanes = [_in_time(lane) for lane in history if lane]
    longest = situation = _Situation((0,) * len(lanes), start)
    seen = {(situation.done, start)}
    waiting = [situation]
    while waiting:
        situation = waiting.pop()
        if sum(situation.done) > sum(longest.done):
            longest = situation
        if sum(longest.done) == sum(map(len, lanes)):
            break
        for following in _following(lanes, situation):
            if (following.done, following.state) not in seen:
                seen.add((following.done, following.state))
                waiting.append(following)
        if len(seen) > LIMIT:
            raise TooHard(f"{sum(map(len, lanes))} operations, more than {LIMIT} situations")
    return Verdict(longest.order(), [operation for _, operation in _next(lanes, longest)])


def _in_time(lane: Sequence[Operation[State]]) -> list[Operation[State]]:
    """Let no operation return after a later one of its client: when that was over, so was this."""
    operations: list[Operation[State]] = []
    end = float("inf")
    for operation in reversed(lane):
        end = min(end, operation.returned)
        operations.append(Operation(operation.called, end, operation.deed))
    return operations[::-1]


def _next(
    lanes: list[list[Operation[State]]], situation: _Situation[State]
) -> list[tuple[int, Operation[State]]]:
    """Return the operations that may come next in time, each with its lane."""
    heads = [
        (number, lane[done])
        for number, (lane, done) in enumerate(zip(lanes, situation.done, strict=True))
        if done < len(lane)
    ]
    horizon = min((operation.returned for _, operation in heads), default=0.0)
    return [head for head in heads if head[1].called <= horizon]


def _following(
    lanes: list[list[Operation[State]]], situation: _Situation[State]
) -> Iterable[_Situation[State]]:
    done = situation.done
    # Last in, first out: what had to be over first is tried first.
    for number, operation in sorted(_next(lanes, situation), key=lambda head: -head[1].returned):
        then = (*done[:number], done[number] + 1, *done[number + 1 :])
        for state in operation.deed.after(situation.state):
            yield _Situation(then, state, situation, operation)
