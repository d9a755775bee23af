"""`Case`: what a batch asks of one session, and what becomes of each change.

All changes of a session are decided on one row, in the order in which they came, and stored by one
write. It owns which answers stand if that write fails: those that came before the first change that
was to be stored rest on what is stored, and stand; all later ones rest on what now is not.
It opens no file.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from minisession.abc import Change, Committed, Destroy, Outcome
from minisession.errors import SaveOutcomeUnknown, StoreCorrupt, StoreError, StoreUnavailable
from minisession.stores._row import Row, after
from minisession.stores._writer import Answer, Job

from . import form
from .errors import again
from .form import encode

logger = logging.getLogger("minisession.stores")


@dataclass(eq=False, slots=True)
class Case:
    """One session in a batch.

    Attributes:
        handle: whose changes these are.
        places: where in the batch the changes stand.
        answers: one for each, once it is decided or refused.
        row: the session as it is to be stored; None if there is to be none.
        is_changed: whether there is something to store.
        was_damaged: what is there is no session; whatever it is, it must go first.
    """

    handle: str
    places: list[int] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    row: Row | None = None
    is_changed: bool = False
    was_damaged: bool = False
    _damage: StoreCorrupt | None = None
    _rests_on_disk: int = 0

    def decide(self, stored: Row | StoreCorrupt | None) -> None:
        """Answer every change, as if what it makes of the session were stored already."""
        if isinstance(stored, StoreCorrupt):
            self._damage = stored
            self.was_damaged = True
        else:
            self.row = stored
        for job in self.jobs:
            # Purges have a thread of their own.
            answer = self._decided(cast("Change", job.request), job.now)
            self.is_changed = self.is_changed or isinstance(answer, Committed)
            self._rests_on_disk += not self.is_changed
            self.answers.append(answer)

    def _decided(self, change: Change, now: float) -> Outcome:
        if self._damage is not None:
            return self._of_damaged(change, self._damage)
        try:
            self.row, outcome = after(self.row, change, now)
        except Exception as error:  # noqa: BLE001  # it is about one: the others must not suffer
            return self._unstorable(error)
        return outcome

    def _of_damaged(self, change: Change, damage: StoreCorrupt) -> Outcome:
        """Leave a damaged session as it is; revocation alone, which asks for no epoch, ends it."""
        if not isinstance(change, Destroy) or change.epoch is not None:
            return again(damage)
        self._damage = None
        return Committed(0)

    def _unstorable(self, error: Exception) -> StoreError:
        """Return the answer to what no file can hold. Its message shows no value."""
        name = type(error).__name__
        logger.error("a change cannot be stored: %s", name)
        return StoreError(f"session {self.handle}: this change cannot be stored ({name})")

    def content_of(self, row: Row) -> bytes:
        """Return what the file is to hold.

        Raises:
            StoreError: no file can hold it.
        """
        try:
            content = encode(row)
        except Exception as error:  # noqa: BLE001  # as above
            raise self._unstorable(error) from None
        if len(content) > form.LARGEST:
            raise StoreError(
                f"session {self.handle}: with {len(content):,} octets it does not fit into a file;"
                f" allowed are {form.LARGEST:,}"
            )
        return content

    # --- what the disk says --------------------------------------------------------------------

    def refuse(self, error: StoreError) -> None:
        """Answer that nothing of this was stored, and that it can be asked for again."""
        stands = self.answers[: self._rests_on_disk]
        self.answers = stands + [again(error) for _ in self.jobs[len(stands) :]]
        self.is_changed = False

    def doubt(self, error: StoreUnavailable) -> None:
        """Answer that what was to be stored may be, or not."""
        message = f"{error}; it is not known what was stored"
        for place in range(self._rests_on_disk, len(self.answers)):
            was_applied = isinstance(self.answers[place], Committed)
            self.answers[place] = SaveOutcomeUnknown(message) if was_applied else again(error)
        self.is_changed = False


def cases_of(jobs: Sequence[Job]) -> list[Case]:
    """Return the sessions that a batch is about, in the order in which they come in it."""
    cases: dict[str, Case] = {}
    for place, job in enumerate(jobs):
        handle = cast("Change", job.request).handle
        case = cases.setdefault(handle, Case(handle))
        case.places.append(place)
        case.jobs.append(job)
    return list(cases.values())
