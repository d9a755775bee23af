"""A clock that tests turn by hand; nobody sleeps."""

from __future__ import annotations


class Clock:
    """Returns a time in seconds since the epoch that moves only when a test says so."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
