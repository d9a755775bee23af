"""From what clients noted to operations that can be judged.

A log is a list of events, each noted when it happened, so that it ends where its process was
killed. Which of a visit's writes are one change, which answer speaks for which of them, and how
long they may have been on their way, is decided here:

    what is written without an await in between is one change (P5)
    with a new id, and all after it, up to the next save, is one change (P7)
    an answer to a save speaks for everything since the last answer
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from .checker import Deed, Operation
from .model import (
    Certainty,
    Change,
    Changed,
    Destroyed,
    Found,
    Label,
    Opened,
    Refreshed,
    Refused,
    Revoked,
    Stored,
    Updated,
)

Event = tuple[float, int, str, tuple[Any, ...]]
"""When, in which visit, what, and with what.

    open label | None       answer nothing | stale | found values
    put key value           clear           drop key
    regenerate label loads  destroy whether it had something to end
    pause
    save                    answer done label | gone | refused | unknown
    leave                   the same
    update key token        answer done label before | gone | refused | unknown
    refresh                 answer found values | gone | refused | unknown
    left                    an exception, mostly a cancellation, has ended the visit
    revoke                  answer done whether it lived
"""

_BREAKS = ("save", "leave", "update")
"""What hands over everything, new ids included."""

_WAITS = ("open", "pause", "refresh", "revoke", *_BREAKS)


@dataclass(slots=True)
class _Unsaved:
    """A deed whose answer has not come. `doubtful`: whatever is answered later, it is unknown."""

    called: float
    deed: Callable[[Certainty, tuple[Change, ...]], Deed[Stored]]
    change: Change | None = None
    doubtful: bool = False


@dataclass(slots=True)
class _Visit:
    """One visit, as far as its events tell."""

    number: int
    reliable: bool  # the store always answers, and does what it is given
    operations: list[Operation[Stored]] = field(default_factory=list)
    others: list[Operation[Stored]] = field(default_factory=list)
    label: Label | None = None
    awaiting: Event | None = None
    unsaved: list[_Unsaved] = field(default_factory=list)
    group: Change | None = None  # what is being written
    group_called: float = 0.0

    # --- writing

    def put(self, time: float, key: str, value: str | None) -> None:
        group = self._written(time)
        self.group = replace(group, items={**group.items, key: value})

    def drop(self, time: float, key: str) -> None:
        self.put(time, key, None)

    def clear(self, time: float) -> None:
        self.group = replace(self._written(time), clear=True, items={})

    def regenerate(self, time: float, label: Label, loads: bool) -> None:
        if self.group is not None and self.group.label is None:
            self._close_group()
        group = self._written(time)
        loads = loads and (group.label is None or group.replaced_loads)
        self.group = replace(group, label=label, replaced_loads=loads)

    def destroy(self, time: float, ends: bool) -> None:
        self._close_group(with_id=False)  # which is never handed over then
        self._doubt()  # what was written before may have been forgotten
        if ends:
            deed = partial(_destroyed, self.number, not self.reliable)
            self.unsaved.append(_Unsaved(time, deed))

    def _written(self, time: float) -> Change:
        if self.group is None:
            self.group_called = time
        return self.group or Change()

    def _close_group(self, *, with_id: bool = True) -> None:
        group, self.group = self.group, None
        if group is not None and (with_id or group.label is None):
            deed = partial(_changed, self.number, group)
            self.unsaved.append(_Unsaved(self.group_called, deed, group))

    # --- waiting

    def awaits(self, event: Event) -> None:
        _, _, name, _ = event
        if name in _BREAKS or (self.group is not None and self.group.label is None):
            self._close_group()
        self.awaiting = None if name == "pause" else event

    def answer(self, time: float, answer: str, *rest: Any) -> None:
        assert self.awaiting is not None
        called, _, name, arguments = self.awaiting
        self.awaiting = None
        if name in ("open", "revoke", "refresh"):
            getattr(self, f"_{name}_answered")(called, time, answer, *arguments, *rest)
            return
        if answer == "done":
            self._settle(Certainty.STORED, time)
            self.label = rest[0]
            if name == "update":
                key, token = arguments
                deed = Updated(self.number, key, rest[1], token, Certainty.STORED)
                self.operations.append(Operation(called, time, deed))
        elif answer == "gone":
            self._settle(Certainty.SETTLED, time)
            wanted = Change({arguments[0]: ""}) if name == "update" else None
            self.operations.append(Operation(called, time, Refused(self.number, wanted)))
        elif answer == "unknown":
            self._doubt_all(called, name, arguments)
        if name == "leave":
            self._settle(Certainty.UNKNOWN, time)

    def _doubt_all(self, called: float, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "update":
            deed = partial(_updated, self.number, *arguments)
            self.unsaved.append(_Unsaved(called, deed))
        self._doubt()

    def _doubt(self) -> None:
        for unsaved in self.unsaved:
            unsaved.doubtful = True

    def _settle(self, certainty: Certainty, time: float) -> None:
        """Note what is known now of everything that had no answer."""
        changes = [unsaved.change for unsaved in self.unsaved]
        for place, unsaved in enumerate(self.unsaved):
            known = Certainty.UNKNOWN if unsaved.doubtful else certainty
            later = tuple(change for change in changes[place + 1 :] if change is not None)
            self.operations.append(Operation(unsaved.called, time, unsaved.deed(known, later)))
        self.unsaved.clear()

    def _open_answered(
        self,
        called: float,
        time: float,
        answer: str,
        label: Label | None,
        values: dict[str, str] | None = None,
    ) -> None:
        self.label = label
        found = {"nothing": Found.NOTHING, "gone": Found.NOTHING, "stale": Found.STALE}.get(answer)
        deed = Opened(self.number, label, values or {} if found is None else found)
        self.operations.append(Operation(called, time, deed))

    def _revoke_answered(self, called: float, time: float, answer: str, *rest: bool) -> None:
        lived = rest[0] if answer == "done" else None
        end = math.inf if answer == "unknown" else time
        if answer != "refused":
            self.operations.append(Operation(called, end, Revoked(lived)))

    def _refresh_answered(
        self, called: float, time: float, answer: str, values: dict[str, str] | None = None
    ) -> None:
        if answer == "unknown":
            self._doubt()
        if answer not in ("found", "gone"):
            return
        changes = [*(unsaved.change for unsaved in self.unsaved), self.group]
        labels = {change.label for change in changes[:-1] if change and change.label}
        unsaved = tuple(change for change in changes if change is not None)
        deed = Refreshed(self.number, (self.label, *sorted(labels)), values, unsaved)
        # In a lane of its own: what is unsaved may be stored before it or after it.
        self.others.append(Operation(called, time, deed))

    # --- the end

    def left(self, time: float) -> None:
        """An exception has ended the visit: what was written is stored, but for new ids."""
        self._interrupted(time)
        self._close_group(with_id=False)
        self._settle(Certainty.SETTLED if self.reliable else Certainty.UNKNOWN, time)

    def killed(self, time: float) -> None:
        """The process was dead at this time: what had no answer may have happened before."""
        self._interrupted(time)
        self._close_group(with_id=False)
        self._settle(Certainty.UNKNOWN, time)

    def _interrupted(self, time: float) -> None:
        if self.awaiting is None:
            return
        called, _, name, arguments = self.awaiting
        if name in _BREAKS:
            self._doubt_all(called, name, arguments)
        elif name == "revoke":
            self.operations.append(Operation(called, time, Revoked(None)))
        self.awaiting = None


def _changed(
    visit: int, change: Change, certainty: Certainty, later: tuple[Change, ...]
) -> Deed[Stored]:
    return Changed(visit, change, certainty, later)


def _updated(
    visit: int, key: str, token: str, certainty: Certainty, _later: tuple[Change, ...]
) -> Deed[Stored]:
    return Updated(visit, key, "", token, certainty)


def _destroyed(
    visit: int, whatever: bool, certainty: Certainty, _later: tuple[Change, ...]
) -> Deed[Stored]:
    return Destroyed(visit, certainty, whatever)


def history(
    events: Iterable[Event], *, reliable: bool = True, died: float = math.inf
) -> list[list[Operation[Stored]]]:
    """Return the operations of one session's log, a lane for each visit.

    Args:
        events: in the order of each visit.
        reliable: the store never fails, so that what is handed over is applied or too late.
        died: when the processes of visits that have not ended were certainly dead.
    """
    visits: dict[int, _Visit] = {}
    for event in events:
        time, number, name, arguments = event
        visit = visits.setdefault(number, _Visit(number, reliable))
        if name in _WAITS:
            visit.awaits(event)
        else:
            getattr(visit, name)(time, *arguments)
    for visit in visits.values():
        visit.killed(died)
    return [lane for visit in visits.values() for lane in _lanes(visit)]


def _lanes(visit: _Visit) -> Iterable[list[Operation[Stored]]]:
    yield visit.operations
    yield from ([operation] for operation in visit.others)
