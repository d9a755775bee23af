"""From the journal to the store: what is handed over, and when things end.

`as_flight` turns journal segments into changes, with every time worked out; `cookie_is_due` and
`touch_is_due` decide what a response and a read must renew. Time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minisession._ids import hash_secret

from .change import Create, Destroy, Expect, Rotation, Touch, Write
from .journal import Kind, Life, Segment, merged

if TYPE_CHECKING:
    from minisession.config import SessionConfig
    from minisession.errors import MinisessionError

TOUCH_BELOW = 19 / 20
"""A read renews the idle timeout when less than this part of it is left: with the default of 180
minutes at most one touch in nine minutes, where others write at every request."""


@dataclass(slots=True, eq=False)
class Leg:
    """One change that was handed over, and the journal segments that it carries.

    A `proposal` is a compare-and-set: it never was in the journal and never returns there.
    """

    segment: Segment
    parts: list[Segment]
    change: Create | Write | Destroy
    proposal: bool = False


@dataclass(slots=True, eq=False)
class Flight:
    """What has been handed to the store together and waits for an answer.

    `error` and `gone` are that answer, once it has come; `refused` is an error that journal
    writes were forgotten for. `done` belongs to whoever waits.
    """

    legs: list[Leg]
    error: MinisessionError | None = None
    refused: MinisessionError | None = None
    gone: bool = False
    done: Any = None

    def take_error(self) -> MinisessionError | None:
        """Return the error, and keep it no longer: it is about to be raised.

        A traceback leads to the frames that hold this flight, and to their callers'. If those led
        back to the error, the session would live until the cycle collector comes by.
        """
        error, self.error = self.error, None
        return error


def as_flight(segments: list[Segment], config: SessionConfig, now: float) -> Flight:
    """Turn segments into one change per life; neighbours of one life become one atomic change."""
    groups: list[list[Segment]] = []
    for segment in segments:
        if groups and groups[-1][0].life is segment.life:
            groups[-1].append(segment)
        else:
            groups.append([segment])
    return Flight([_as_leg(parts, config, now) for parts in groups])


def _as_leg(parts: list[Segment], config: SessionConfig, now: float) -> Leg:
    segment = parts[0]
    for part in parts[1:]:
        segment = merged(segment, part)
    return Leg(segment, parts, as_change(segment, config, now))


def as_change(segment: Segment, config: SessionConfig, now: float) -> Create | Write | Destroy:
    """Turn one segment into the change that a store understands."""
    life = segment.life
    if segment.kind is Kind.DESTROY:
        return Destroy(life.handle, None if life.in_doubt else life.epoch)
    if segment.kind is Kind.CREATE:
        return _as_create(segment, config, now)
    issues = segment.kind is Kind.ROTATE
    return Write(
        handle=life.handle,
        epoch=life.epoch,
        expires=deadline(life, config, now),
        max_size=config.max_size,
        items=segment.items,
        clear=segment.clear,
        rotation=_rotation(segment, config, now) if issues else None,
        cookie_until=cookie_end(life, config, now) if issues or segment.renew_cookie else None,
        principal=segment.principal,
    )


def _as_create(segment: Segment, config: SessionConfig, now: float) -> Create:
    life = segment.life
    life.created = now
    return Create(
        handle=life.handle,
        secret=_hash_of(life),
        items={key: data for key, data in segment.items.items() if data is not None},
        created=now,
        expires=deadline(life, config, now),
        cookie_until=cookie_end(life, config, now),
        max_size=config.max_size,
        principal=segment.principal or None,
    )


def _rotation(segment: Segment, config: SessionConfig, now: float) -> Rotation:
    return Rotation(_hash_of(segment.life), now + config.rotation_grace, segment.previous_loads)


def _hash_of(life: Life) -> bytes:
    assert life.secret is not None, "a life that issues an id has drawn its secret"  # noqa: S101
    return hash_secret(life.secret)


def as_proposal(
    life: Life, expect: Expect, data: bytes, config: SessionConfig, now: float
) -> Flight:
    """Return a flight with one compare-and-set."""
    segment = Segment(Kind.WRITE, life, items={expect.key: data})
    change = Write(
        handle=life.handle,
        epoch=life.epoch,
        expires=deadline(life, config, now),
        max_size=config.max_size,
        items=segment.items,
        expect=expect,
    )
    return Flight([Leg(segment, [segment], change, proposal=True)])


def deadline(life: Life, config: SessionConfig, now: float) -> float:
    """Return when the session ends if nobody uses it after `now`."""
    idle_end = now + config.idle
    if config.absolute is None or life.created is None:
        return idle_end
    return min(idle_end, life.created + config.absolute)


def cookie_end(life: Life, config: SessionConfig, now: float) -> float:
    """Return when a cookie sent at `now` ends in the browser; 0 if it ends with the browser."""
    max_age = config.cookie_max_age(now, now if life.created is None else life.created)
    return 0.0 if max_age is None else now + max_age


def cookie_is_due(life: Life, config: SessionConfig, now: float) -> bool:
    """Tell whether the cookie must be sent again, or the browser could lose it too early.

    That is so when less than half of what a new one would get is left: with `cookie_lifetime=0`
    that is one idle timeout, so whoever is active keeps the cookie as long as the session.
    """
    if config.cookie_lifetime != 0 or life.outdated or life.secret is None:
        return False
    return life.cookie_until - now < (cookie_end(life, config, now) - now) / 2


def touch_is_due(life: Life, config: SessionConfig, now: float) -> Touch | None:
    """Return the touch that a read at `now` calls for, if it calls for one."""
    if not config.refresh_on_read or not life.stored or life.outdated:
        return None
    if life.expires - now >= TOUCH_BELOW * config.idle:
        return None
    expires = deadline(life, config, now)
    return Touch(life.handle, life.epoch, expires) if expires > life.expires else None
