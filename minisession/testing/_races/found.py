"""`RaceFound`: what is said about a schedule in which a scenario fails."""

from __future__ import annotations

__all__ = ["RaceFound", "leaf"]


class RaceFound(AssertionError):
    """A schedule in which the scenario fails; its cause is what the scenario raised.

    Attributes:
        backend: "asyncio" or "trio".
        seed: the seed of the schedule as it was found; None if it was not found by a seed.
        trace: the schedule, made short; `replay` runs it again.
        tried: how many schedules were run until it was found.
    """

    def __init__(
        self, name: str, problem: BaseException, *, backend: str, seed: int | None, trace: str,
        tried: int, note: str = "",
    ) -> None:  # fmt: skip
        first = leaf(problem)
        what = f"{type(first).__name__}: {first}" if str(first) else type(first).__name__
        seeded = "" if seed is None else f", seed {seed}"
        lines = [
            what,
            f"found on {backend} in schedule {tried}{seeded}. To see it again:",
            f"    replay({name}, {trace!r}, backend={backend!r})",
        ]
        super().__init__("\n".join(lines + ([note] if note else [])))
        self.backend = backend
        self.seed = seed
        self.trace = trace
        self.tried = tried


def leaf(error: BaseException) -> BaseException:
    """Return the first exception in a group of groups, which says most; or what is no group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
