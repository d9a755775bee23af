"""A failing schedule, made short: as many choices as possible become 0, which leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["shrunk"]

MAX_RUNS = 100
MAX_CHOICES = 100_000
"""Runs and their choices that a short trace is worth: a fraction of a second, mostly."""


def shrunk(choices: Sequence[int], fails: Callable[[list[int]], list[int] | None]) -> None:
    """Look for a shorter schedule that fails as well.

    Args:
        choices: of the schedule that fails.
        fails: runs the given choices; returns those that it really made if it fails, else None.
            The last that it did not return None for is the shortest.
    """
    best = list(choices)
    size = len(best)
    budget = min(MAX_RUNS, MAX_CHOICES // (len(best) + 1))
    while size:
        for places in _chunks(best, size):
            if not budget:
                return
            budget -= 1
            shorter = fails(_without(best, places))
            if shorter is not None:
                best = shorter
                break
        else:
            size //= 2


def _chunks(choices: list[int], size: int) -> list[list[int]]:
    """The places of what is not 0, in groups, the last group first: the end matters least."""
    places = [place for place, choice in enumerate(choices) if choice]
    return [places[max(0, end - size) : end] for end in range(len(places), 0, -size)]


def _without(choices: list[int], places: list[int]) -> list[int]:
    left_out = set(places)
    return [0 if place in left_out else choice for place, choice in enumerate(choices)]
