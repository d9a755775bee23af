"""How much a search tries, and the count of what was tried.

A search for bugs (schedules, histories, kills, power cuts, cancellations) is as good as what it
has tried, so every one of them says it, and `tests/conftest.py` prints the sums at the end of the
run. How hard to look is decided here: so much in each run, more in `nox -s soak`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

import pytest

SOAK = bool(os.environ.get("MINISESSION_SOAK"))
"""Whether this is the long run, `nox -s soak`."""

_PREFIX = "tried "


def effort(usual: int, *, soak: int) -> int:
    """How many of something to try: `usual` in every run, `soak` in the long one."""
    return soak if SOAK else usual


class Tally:
    """Counts what one test has tried, under names such as "schedules"."""

    def __init__(self, properties: list[tuple[str, object]]) -> None:
        self._properties = properties

    def __call__(self, what: str, tried: int) -> None:
        """Add to the count of the whole run, which its summary prints."""
        assert tried > 0, f"nothing was tried: 0 {what}"
        self._properties.append((_PREFIX + what, tried))


def summed(reports: Iterable[pytest.TestReport]) -> Counter[str]:
    """The counts of all tests together, by name."""
    sums: Counter[str] = Counter()
    for report in reports:
        for name, tried in report.user_properties:
            if name.startswith(_PREFIX) and isinstance(tried, int):
                sums[name.removeprefix(_PREFIX)] += tried
    return sums
