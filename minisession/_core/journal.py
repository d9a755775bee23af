"""The journal: the writes of one session that the store does not have yet.

It is a short list of segments, each of which becomes at most one change. Writes of one key
collapse to the last one. A segment that issues an id (`CREATE`, `ROTATE`) is a border: it and
everything after it may only be handed over when an answer can carry the id.

    put a │ ROTATE put b drop c        DESTROY (old life) │ CREATE (new life) put d

All mutable state is `segments`; the invariant: of one life there is at most one `WRITE`, before
at most one `CREATE` or `ROTATE`; a `DESTROY` is the only segment of its life.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Kind(Enum):
    """What a segment does besides its puts and drops."""

    CREATE = "create"
    WRITE = "write"
    ROTATE = "rotate"
    DESTROY = "destroy"


ISSUING = (Kind.CREATE, Kind.ROTATE)


@dataclass(slots=True, eq=False)
class Life:
    """One session in the store, from its creation to its end, as this exchange knows it.

    `secret` is what the browser should hold, None if unknown (`open_handle`). `stored` says that
    the store has it or may have it; `outdated`, that somebody else has replaced the id since;
    `in_doubt`, that the store has not answered a change; `ended`, that it was destroyed here;
    `touching`, that a touch is on its way.
    """

    handle: str
    secret: str | None = field(repr=False)
    epoch: int = 0
    stored: bool = False
    outdated: bool = False
    in_doubt: bool = False
    ended: bool = False
    touching: bool = False
    created: float | None = None
    expires: float = 0.0
    cookie_until: float = 0.0
    principal: str | None = None


@dataclass(slots=True, eq=False)
class Segment:
    """Operations of one life, in the order clear, then items (None drops), then the rest."""

    kind: Kind
    life: Life
    clear: bool = False
    items: dict[str, bytes | None] = field(default_factory=dict, repr=False)
    principal: str | None = None
    replaced_secret: str | None = field(default=None, repr=False)
    previous_loads: bool = False
    renew_cookie: bool = False


class Journal:
    """The segments in order; the last one takes the next write."""

    __slots__ = ("segments",)

    def __init__(self) -> None:
        self.segments: list[Segment] = []

    def __bool__(self) -> bool:
        return bool(self.segments)

    @property
    def issuing(self) -> Segment | None:
        """The segment that issues an id, if there is one: the last of a kind is the one."""
        for segment in reversed(self.segments):
            if segment.kind in ISSUING:
                return segment
        return None

    @property
    def flushable(self) -> bool:
        """Whether something may be handed over although no answer is at hand.

        Asked without the lock: another thread may take the segments at any moment.
        """
        segments = self.segments
        return bool(segments) and segments[0].kind not in ISSUING

    def names(self, key: str) -> bool:
        """Tell whether something is pending that puts or drops this key."""
        return any(segment.clear or key in segment.items for segment in self.segments)

    def open_segment(self, life: Life) -> Segment:
        """Return the segment that takes a write of this life, appending one if needed."""
        if self.segments and self.segments[-1].life is life:
            return self.segments[-1]
        return self.append(Kind.WRITE, life)

    def append(self, kind: Kind, life: Life) -> Segment:
        """Begin a new segment."""
        segment = Segment(kind, life)
        self.segments.append(segment)
        return segment

    def destroy(self, life: Life) -> None:
        """Void what is pending for a life, and end it if the store has it or may have it."""
        self.forget(life)
        if life.stored:
            self.append(Kind.DESTROY, life)

    def forget(self, life: Life) -> None:
        """Drop what is pending for a life."""
        self.segments = [segment for segment in self.segments if segment.life is not life]

    def take(self, *, issuing: bool) -> list[Segment]:
        """Remove and return what may be handed over now.

        Without `issuing`, that ends before what issues an id. It always ends after a `DESTROY`:
        what comes after that must wait for the answer, and is void if others were first.
        """
        end = len(self.segments)
        for index, segment in enumerate(self.segments):
            if segment.kind is Kind.DESTROY:
                end = index + 1
                break
            if segment.kind in ISSUING and not issuing:
                end = index
                break
        taken, self.segments = self.segments[:end], self.segments[end:]
        return taken

    def restore(self, segments: list[Segment]) -> None:
        """Put back what a store did not take, before what was written meanwhile."""
        for segment in reversed(segments):
            if self._merges_into_first(segment):
                self.segments[0] = merged(segment, self.segments[0])
            else:
                self.segments.insert(0, segment)

    def _merges_into_first(self, segment: Segment) -> bool:
        if not self.segments or self.segments[0].life is not segment.life:
            return False
        return segment.kind in ISSUING or self.segments[0].kind is Kind.WRITE


def merged(first: Segment, second: Segment) -> Segment:
    """Return one segment that does what two of the same life do, one after the other.

    Of two that issue an id, only the second id was ever meant to reach a browser: together they
    create, or replace the secret that the first one replaces.
    """
    issuing = [segment for segment in (first, second) if segment.kind in ISSUING]
    return Segment(
        issuing[0].kind if issuing else Kind.WRITE,
        second.life,
        clear=first.clear or second.clear,
        items=dict(second.items) if second.clear else {**first.items, **second.items},
        principal=first.principal if second.principal is None else second.principal,
        replaced_secret=issuing[0].replaced_secret if issuing else None,
        previous_loads=bool(issuing) and all(segment.previous_loads for segment in issuing),
        renew_cookie=first.renew_cookie or second.renew_cookie,
    )


def apply(segment: Segment, items: dict[str, bytes]) -> None:
    """Do to `items` what the segment does to the stored ones."""
    if segment.clear:
        items.clear()
    for key, data in segment.items.items():
        if data is None:
            items.pop(key, None)
        else:
            items[key] = data
