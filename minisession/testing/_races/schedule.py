"""`Schedule`: where the choices of one run come from, and the record of them.

It owns numbers and knows nothing of what is chosen. Wherever one of n things can be next, the run
calls `choose(n)`; 0 is what has been ready for the longest, so a schedule of zeros is first come,
first served.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import groupby
from random import Random

__all__ = ["Schedule", "counted", "next_choices"]

_ENTRY = re.compile(r"(\d+):(\d+)(?:x(\d+))?")


class Schedule:
    """The choices of one run; each is used once.

        Schedule(lambda n: data.draw(st.integers(0, n - 1)))   # Hypothesis draws the order

    Args:
        source: called with n, returns a number from 0 to n - 1.

    Attributes:
        choices: what has been chosen so far, where there was a choice.
        ways: out of how many, each time.
    """

    def __init__(self, source: Callable[[int], int]) -> None:
        self._source = source
        self.choices: list[int] = []
        self.ways: list[int] = []

    def __repr__(self) -> str:
        return f"<Schedule {self.trace!r} of {len(self.choices)} choices>"

    @classmethod
    def seeded(cls, seed: int) -> Schedule:
        """Return a schedule that is random, and the same for the same seed."""
        return cls(_seeded(Random(seed)))  # noqa: S311  # it has to be repeatable

    @classmethod
    def replayed(cls, trace: str) -> Schedule:
        """Return the schedule that a trace was written of.

        Raises:
            ValueError: it is none.
        """
        return counted(_choices_of(trace))

    def choose(self, n: int) -> int:
        """Choose one of n, from 0 to n - 1. One of one is no choice and leaves no trace."""
        if n == 1:
            return 0
        choice = self._source(n)
        if not 0 <= choice < n:
            raise ValueError(
                f"the source of a Schedule chose {choice!r} of {n}; it may be 0..{n - 1}"
            )
        self.choices.append(choice)
        self.ways.append(n)
        return choice

    @property
    def trace(self) -> str:
        """The choices so far as a short text: `place:choice`, or `place:choicexTimes`, if not 0."""
        entries = []
        place = 0
        for choice, group in groupby(self.choices):
            times = len(list(group))
            if choice:
                entries.append(f"{place}:{choice}" + (f"x{times}" if times > 1 else ""))
            place += times
        return " ".join(entries)


def counted(choices: Sequence[int]) -> Schedule:
    """Return a schedule of the given choices, and of zeros after them.

    A number that is too large, because the program has changed, counts as the largest possible.
    """
    rest = iter(choices)
    return Schedule(lambda n: min(next(rest, 0), n - 1))


def next_choices(schedule: Schedule) -> list[int] | None:
    """Return what to choose after `schedule` to try all in order, depth first; None at the end."""
    for place in reversed(range(len(schedule.choices))):
        if schedule.choices[place] + 1 < schedule.ways[place]:
            return [*schedule.choices[:place], schedule.choices[place] + 1]
    return None


def _choices_of(trace: str) -> list[int]:
    choices: list[int] = []
    for entry in trace.split():
        match = _ENTRY.fullmatch(entry)
        if match is None or int(match[1]) < len(choices):
            raise ValueError(
                f"a trace cannot contain {entry!r} there; it is what RaceFound printed, such as"
                " '3:1 17:2x5': place:choice, and how often, in rising order of places"
            )
        choices += [0] * (int(match[1]) - len(choices))
        choices += [int(match[2])] * int(match[3] or 1)
    return choices


def _seeded(random: Random) -> Callable[[int], int]:
    """Return a random walk: one half of them is fair to all steps, the other one stubborn.

    A fair walk hardly ever lets a task wait while another runs far ahead. A stubborn one takes
    what has become ready last, mostly the task that has just run, and seldom something else.
    """
    if random.random() < 0.5:
        return lambda n: int(random.random() * n)
    whim = random.choice((0.1, 0.2, 0.4))
    return lambda n: int(random.random() * n) if random.random() < whim else n - 1
