"""`Round`: visitors who browse until something is killed, at a moment that is drawn."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator

import anyio

from tests.crash.servers import LONGEST
from tests.crash.visitor import Lost, Town, Visitor
from tests.effort import effort

MOST_ANSWERS = effort(70, soak=150)  # in one round
WEIGHTS = {"look": 1, "put": 8, "drop": 1, "count": 6, "login": 3, "logout": 1, "goodbye": 1}


def pages(rng: random.Random) -> Iterator[str]:
    """Choose pages for ever."""
    while True:
        yield from rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=10)


class Round:
    """From one death to the next."""

    def __init__(self, town: Town, rng: random.Random) -> None:
        self._town = town
        self._rng = rng
        self._missing = rng.randint(1, MOST_ANSWERS)
        self._is_over = anyio.Event()
        for visitor in town.visitors:
            visitor.answered = self._count

    def _count(self, page: str) -> None:
        self._missing -= 1
        if self._missing == 0:
            self._is_over.set()

    async def run(self, port: int, kill: Callable[[], Awaitable[object]]) -> None:
        """Let everybody browse, kill, and wait until everybody has noticed."""
        async with anyio.create_task_group() as tasks:
            for visitor in self._town.visitors:
                tasks.start_soon(self._browse, visitor, port)
            with anyio.fail_after(LONGEST):
                await self._is_over.wait()
            await anyio.sleep(self._rng.uniform(0.0, 0.01))  # any moment, not just after an answer
            await kill()

    async def _browse(self, visitor: Visitor, port: int) -> None:
        try:
            await visitor.browse(port, pages(self._rng))
        except Lost:
            assert self._is_over.is_set(), "something failed before anything was killed"
