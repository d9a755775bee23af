"""A failing schedule, made short: as many choices as possible become 0, which leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["shrunk"]

MAX_RUNS = 100
"""Runs that a failing schedule is worth: a fraction of a second, mostly."""


def shrunk(choices: Sequence[int], fails: Callable[[list[int]], list[int] | None]) -> None:
    """Look for a shorter schedule that fails as well.

    Args:
        choices: of the schedule that fails.
        fails: runs the given choices; returns those that it really made if it fails, else None.
            The last that it did not return None for is the shortest.
    """
    best = list(choices)
    size = max(1, len(best) // 2)
    runs = 0
    while runs < MAX_RUNS:
        candidate = None
        for places in _chunks(best, size):
            if runs == MAX_RUNS:
                return
            runs += 1
            candidate = fails(_without(best, places))
            if candidate is not None:
                best = candidate
                break
        if candidate is None:
            if size == 1:
                return
            size = max(1, size // 2)


def _chunks(choices: list[int], size: int) -> list[list[int]]:
    """The places of what is not 0, in groups, the last group first: the end matters least."""
    places = [place for place, choice in enumerate(choices) if choice]
    return [places[max(0, end - size) : end] for end in range(len(places), 0, -size)]


def _without(choices: list[int], places: list[int]) -> list[int]:
    left_out = set(places)
    return [0 if place in left_out else choice for place, choice in enumerate(choices)]
