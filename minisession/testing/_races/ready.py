"""`Ready`: the steps that could be taken next, in an order that is the same in every process.

Backends wake tasks from sets, in the order of their addresses in memory. So what becomes ready
between two choices is put in the order in which its tasks were born.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Ready"]

T = TypeVar("T")


class Ready(Generic[T]):
    """The steps that are ready, the one that has waited longest first.

    Args:
        birth: returns when the task of a step was born; no two tasks at once.
        choose: returns which of n is next.
    """

    def __init__(self, birth: Callable[[T], int], choose: Callable[[int], int]) -> None:
        self._birth = birth
        self._choose = choose
        self._waiting: list[T] = []
        self._arrived: list[T] = []

    def __len__(self) -> int:
        return len(self._waiting) + len(self._arrived)

    def add(self, step: T) -> None:
        """Note that a step has become ready."""
        self._arrived.append(step)

    def take(self) -> T:
        """Take any of them; there must be one."""
        if len(self._arrived) > 1:
            self._arrived.sort(key=self._birth)
        self._waiting += self._arrived
        self._arrived.clear()
        return self._waiting.pop(self._choose(len(self._waiting)))
