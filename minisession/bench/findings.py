"""What the visitors saw: whether each value was their own, and just as they had written it.

Every value that a visitor writes is a tag that begins with its number, so that a value tells whose
it is wherever it turns up. This file knows tags and verdicts; where to look is said by others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

EXAMPLES: Final = 5
"""How many findings are told in full; one bug shows up thousands of times."""


def tag(owner: int, part: str, turn: int = 0) -> str:
    """Return the value that visitor `owner` writes at this place for the time `turn`."""
    return f"{owner}/{part}/{turn}"


@dataclass(slots=True)
class Findings:
    """Counts what visitors saw, and keeps the first of what they should not have seen.

    Attributes:
        looks: how often a visitor looked at its whole session.
        cross_talk: looks at which something of another visitor was there.
        lost: looks at which its own values were not as it had written them: missing, out of date,
            or one half of a change.
        failed: requests that were not answered with a 200, or whose handler failed.
        examples: the first findings, in words.
    """

    looks: int = 0
    cross_talk: int = 0
    lost: int = 0
    failed: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.cross_talk or self.lost or self.failed)

    def look(
        self,
        where: str,
        owner: int,
        seen: Mapping[str, Any],
        allowed: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Judge what `owner` saw of its session.

        Args:
            where: the place in the visit, for the message.
            owner: the visitor's number.
            seen: the session.
            allowed: the states that it may be in; none if a sibling is writing just now, so that
                only the owner of each value is known.
        """
        self.looks += 1
        if seen in allowed:
            return
        for key, value in seen.items():
            stranger = _stranger(value, owner)
            if stranger is not None:
                self.cross_talk += 1
                self._tell(f"{where}: visitor {owner} saw {key!r} of visitor {stranger}")
                return
        if allowed or "owner" not in seen:
            self.lost += 1
            self._tell(f"{where}: visitor {owner} found {_difference(seen, allowed)}")

    def leak(self, where: str, owner: int) -> None:
        """Note that a session is bound where no request is being handled."""
        self.cross_talk += 1
        self._tell(f"{where}: a session was bound to visitor {owner} outside of any request")

    def fail(self, where: str, owner: int, what: object) -> None:
        """Note that a request failed."""
        self.failed += 1
        self._tell(f"{where}: visitor {owner} failed: {what}")

    def _tell(self, example: str) -> None:
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)


def _stranger(value: object, owner: int) -> str | None:
    """Return the number of another visitor whose tag is in `value`, if one is."""
    own = str(owner)
    for found in _tags(value):
        number = found.partition("/")[0]
        if number != own:
            return number
    return None


def _tags(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tags(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _tags(inner)


def _difference(seen: Mapping[str, Any], allowed: Sequence[Mapping[str, Any]]) -> str:
    if not seen or not allowed:
        return "nothing that it had written"
    latest = allowed[-1]
    keys = [key for key in {**latest, **seen} if seen.get(key) != latest.get(key)]
    return f"{', '.join(map(repr, keys))} not as it had written it"
