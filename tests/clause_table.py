"""The table of `check_store`: which store has kept which clause, as one run has seen it.

A test of a clause notes what it checks with `note`; `tests/conftest.py` prints the table at the end
of the run, a row for each part of the contract, or for each clause with `-v`. The notes travel with
the reports, so they come from all processes of the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import pytest

_NAME = "clause"

Place = tuple[str, str, str, str]
"""A part of the contract, a clause, a store and a backend."""


def note(
    properties: list[tuple[str, object]], part: str, clause: str, store: str, backend: str
) -> None:
    """Note in a test's `user_properties` which clause it checks, in which store."""
    properties.append((_NAME, (part, clause, store, backend)))


@dataclass(frozen=True)
class Table:
    """How often each clause was checked, and how often it was kept.

    Attributes:
        checked: counted by part, clause, store and backend.
        kept: the same.
    """

    checked: Counter[Place]
    kept: Counter[Place]

    @classmethod
    def of(cls, reports: Iterable[pytest.TestReport]) -> Table:
        """Collect what tests have noted."""
        table = cls(Counter(), Counter())
        for report in reports:
            for name, noted in report.user_properties:
                if name == _NAME:
                    place = cast("Place", tuple(cast("list[str]", noted)))  # xdist makes lists
                    table.checked[place] += 1
                    table.kept[place] += report.passed
        return table

    @property
    def stores(self) -> list[tuple[str, str]]:
        """Each store with each backend, in a fixed order."""
        return sorted({(store, backend) for _, _, store, backend in self.checked})

    def lines(self, *, each: bool) -> Iterator[str]:
        """Return the table as Markdown: a row for each part, or for each clause."""
        if not self.stores:
            return
        yield _row("clause" if each else "clauses about", (" ".join(s) for s in self.stores))
        yield _row("---", ("---" for _ in self.stores))
        names = {(part, clause if each else "") for part, clause, _, _ in self.checked}
        for part, clause in sorted(names):
            yield _row(clause or part, (self._cell(part, clause, *s) for s in self.stores))
        yield _row("all", (self._cell("", "", *s) for s in self.stores))

    def _cell(self, part: str, clause: str, store: str, backend: str) -> str:
        """Return kept/checked; an empty part or clause stands for all of them."""

        def total(counts: Counter[Place]) -> int:
            return sum(
                number
                for (p, c, s, b), number in counts.items()
                if (s, b) == (store, backend) and part in ("", p) and clause in ("", c)
            )

        return f"{total(self.kept)}/{total(self.checked)}" if total(self.checked) else "-"


def _row(name: str, cells: Iterable[str]) -> str:
    return f"| {' | '.join((name, *cells))} |"
