"""One session as DESIGN describes it: what each operation does to it, and which answers can be.

It owns the rules, once more and in another way than the package: registers that are written
together, an id that is replaced, an end that is final. It refuses to know stores, flights and
journals. Each deed belongs to a visit: one `Session` object, which loaded the session in some
epoch. A visit that met the session's end, or its own, is void: nothing that it writes counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

VOID: Final = -1

Label = str
"""Stands for an id, of which no secret may be shown."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The session, and what its visits know of it.

    `items` are (key, value, epoch) in the order of keys; the value None says that it was dropped.
    `visits` are (visit, epoch) in the order of visits.
    """

    label: Label
    items: tuple[tuple[str, str | None, int], ...] = ()
    lives: bool = True
    epoch: int = 0
    replaced: Label | None = None
    replaced_loads: bool = False
    cleared: int = -1
    graceful: bool = True  # no time passes: with a grace, it is never over
    visits: tuple[tuple[int, int], ...] = ()

    @classmethod
    def begun(cls, label: Label, values: Mapping[str, str], *, graceful: bool = True) -> Stored:
        items = tuple((key, value, 0) for key, value in sorted(values.items()))
        return cls(label, items, graceful=graceful)

    def values(self) -> dict[str, str]:
        return {key: value for key, value, _ in self.items if value is not None}

    def ended(self) -> Stored:
        return replace(self, lives=False, items=())

    def epoch_of(self, visit: int) -> int:
        return dict(self.visits)[visit]

    def visited(self, visit: int, epoch: int) -> Stored:
        return replace(self, visits=tuple(sorted({**dict(self.visits), visit: epoch}.items())))

    def voided(self, visit: int) -> Stored:
        return self.visited(visit, VOID)

    def is_late(self, visit: int) -> bool:
        """Whether the id was replaced since the visit, and its writes may still count."""
        return self.graceful and self.epoch_of(visit) == self.epoch - 1


@dataclass(frozen=True, slots=True)
class Change:
    """What was written without an await in between: it happens as one. None drops a key."""

    items: Mapping[str, str | None] = field(default_factory=dict)
    clear: bool = False
    label: Label | None = None  # the new id, if it brings one
    replaced_loads: bool = False

    def counts(self, state: Stored, visit: int) -> bool:
        """Whether the session lives, and is still the one that the visit knows."""
        epoch = state.epoch_of(visit)
        if not state.lives or epoch == VOID:
            return False
        if epoch == state.epoch:
            return True
        if not state.is_late(visit) or self.clear or self.label or state.cleared == state.epoch:
            return False
        return all(key not in self.items or since < state.epoch for key, _, since in state.items)

    def applied(self, state: Stored, visit: int, *, with_new_id: bool = False) -> Stored:
        """Return the session with this change, which counts.

        `with_new_id`: it is handed over with a later change that replaces the id. What is written
        together with a new id has been written since the id was replaced.
        """
        now = state.epoch_of(visit) + with_new_id
        if self.label is not None:
            now += 1
            state = replace(
                state,
                epoch=now,
                label=self.label,
                replaced=state.label,
                replaced_loads=self.replaced_loads,
            ).visited(visit, now)
        if self.clear:
            state = replace(state, items=(), cleared=now)
        kept = {key: (value, since) for key, value, since in state.items}
        kept.update({key: (value, now) for key, value in self.items.items()})
        items = tuple((key, value, since) for key, (value, since) in sorted(kept.items()))
        return replace(state, items=items)


class Found(Enum):
    """What a visit finds instead of a session."""

    NOTHING = "no such session"
    STALE = "an id that was replaced"


class Certainty(Enum):
    """What is known of a change."""

    STORED = "stored"
    SETTLED = "stored, unless it was too late"
    UNKNOWN = "perhaps stored"


@dataclass(frozen=True, slots=True)
class Opened:
    """A visit loads the session, by an id or (`label` None) by its handle."""

    visit: int
    label: Label | None
    found: Mapping[str, str] | Found

    def after(self, state: Stored) -> Iterable[Stored]:
        found, epoch = look_up(state, self.label)
        if found != self.found:
            return []
        return [state.visited(self.visit, epoch)]


def look_up(state: Stored, label: Label | None) -> tuple[Mapping[str, str] | Found, int]:
    """Return what an id, or no id but the handle, finds, and the epoch that it belongs to."""
    if not state.lives:
        return Found.NOTHING, VOID
    if label in (None, state.label):
        return state.values(), state.epoch
    if state.epoch == 0 or not state.graceful:
        return Found.NOTHING, VOID
    if label == state.replaced and state.replaced_loads:
        return state.values(), state.epoch - 1
    return Found.STALE, VOID


@dataclass(frozen=True, slots=True)
class Changed:
    """A visit writes. `later` are its writes that may have been handed over with this one.

    What is handed over together is refused together, and a refusal voids the visit.
    """

    visit: int
    change: Change
    certainty: Certainty
    later: tuple[Change, ...] = ()

    def after(self, state: Stored) -> Iterable[Stored]:
        counts = self.change.counts(state, self.visit)
        if counts:
            yield self.change.applied(state, self.visit)
        if counts and any(change.label for change in self.later):
            yield self.change.applied(state, self.visit, with_new_id=True)
        if self.certainty is Certainty.STORED:
            return
        if not all(change.counts(state, self.visit) for change in (self.change, *self.later)):
            yield state.voided(self.visit)
        if self.certainty is Certainty.UNKNOWN:
            yield state


@dataclass(frozen=True, slots=True)
class Updated:
    """A visit appends to a value; `before` is the value that its function got.

    With `certainty` UNKNOWN there is no `before`: it appended to what was there, or did nothing.
    """

    visit: int
    key: str
    before: str
    token: str
    certainty: Certainty

    def after(self, state: Stored) -> Iterable[Stored]:
        before = state.values().get(self.key, "")
        change = Change({self.key: f"{before}.{self.token}"})
        known = self.certainty is not Certainty.UNKNOWN
        if change.counts(state, self.visit) and (not known or before == self.before):
            yield change.applied(state, self.visit)
        if not known:
            yield from (state, *Refused(self.visit, change).after(state))


@dataclass(frozen=True, slots=True)
class Refused:
    """A visit hears that the session is gone. `change` is what it wanted, if it was that."""

    visit: int
    change: Change | None = None

    def after(self, state: Stored) -> Iterable[Stored]:
        void = state.epoch_of(self.visit) == VOID
        if void or (self.change and not self.change.counts(state, self.visit)):
            yield state.voided(self.visit)


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A visit reads the session again, under one of the ids that it may have by now.

    `unsaved` are its writes so far that may not have been stored: they are shown on top.
    """

    visit: int
    labels: tuple[Label | None, ...]
    found: Mapping[str, str] | None
    unsaved: tuple[Change, ...] = ()

    def after(self, state: Stored) -> Iterable[Stored]:
        if state.epoch_of(self.visit) == VOID:
            if self.found is None:
                yield state
            return
        for label in self.labels:
            found, epoch = look_up(state, label)
            if isinstance(found, Found):
                if self.found is None:
                    yield state.voided(self.visit)
            elif self.found in _on_top(found, self.unsaved):
                yield state.visited(self.visit, epoch)


def _on_top(stored: Mapping[str, str], unsaved: tuple[Change, ...]) -> list[dict[str, str]]:
    """Return what is shown if all of the changes are stored, all but the last, and so on."""
    return [shown(stored, unsaved[first:]) for first in range(len(unsaved) + 1)]


def shown(stored: Mapping[str, str], unsaved: Iterable[Change]) -> dict[str, str]:
    """Return the values with changes on top."""
    values: dict[str, str | None] = dict(stored)
    for change in unsaved:
        if change.clear:
            values.clear()
        values.update(change.items)
    return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Destroyed:
    """A visit ends the session. `certainty` STORED says: it was alive no more when this was over.

    `whatever` its epoch: so it is while an outcome is unknown.
    """

    visit: int
    certainty: Certainty
    whatever: bool = False

    def after(self, state: Stored) -> Iterable[Stored]:
        if not state.lives:
            yield state
            return
        epoch = state.epoch_of(self.visit)
        late = state.is_late(self.visit) and state.replaced_loads
        counts = epoch != VOID and (epoch == state.epoch or late)
        if counts or self.whatever:
            yield state.ended()
        if not counts and self.certainty is not Certainty.STORED:
            yield state.voided(self.visit)
        if self.certainty is Certainty.UNKNOWN:
            yield state


@dataclass(frozen=True, slots=True)
class Revoked:
    """Somebody ends the session from outside, and hears whether it lived; None: no answer."""

    lived: bool | None

    def after(self, state: Stored) -> Iterable[Stored]:
        if self.lived is None:
            return [state, state.ended()]
        return [state.ended()] if self.lived is state.lives else []
