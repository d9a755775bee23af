"""Whose business it is that an app has raised: the server's, the client's, or the app's own.

Owns the reading of an exception that leaves an app, be it in a group or behind another one. It
knows nothing of requests, and decides nothing about them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import anyio

from .errors import ClientDisconnected

_ENDS_OF_PROCESS = (KeyboardInterrupt, SystemExit)


class Blame(NamedTuple):
    """An exception taken apart; either may be None.

    Attributes:
        order: what the server has to obey and to raise on: the end of the process, or the
            cancellation of the task.
        failure: the rest, which is between the app and its client.
    """

    order: BaseException | None
    failure: BaseException | None


def is_cancelled() -> bool:
    """Whether the task that asks is being cancelled by a scope around it."""
    return anyio.current_effective_deadline() == -math.inf


def blame(error: BaseException) -> Blame:
    """Take apart what an app has raised, in the task that ran it.

    A cancellation that nobody asked for is a failure like any other: an app may await an asyncio
    future that was cancelled; left alone, it would cancel the whole server. So is all else that
    is no `Exception`, such as GeneratorExit.
    """
    kinds: tuple[type[BaseException], ...] = _ENDS_OF_PROCESS
    if is_cancelled():
        kinds = (*kinds, anyio.get_cancelled_exc_class())
    if not isinstance(error, BaseExceptionGroup):
        return Blame(error, None) if isinstance(error, kinds) else Blame(None, error)
    group, failure = error.split(kinds)
    return Blame(None if group is None else _most_urgent(group), failure)


def _most_urgent(orders: BaseException) -> BaseException:
    """Return one of a group, which will do: asyncio does not take a group for a cancellation."""
    leaves = list(_leaves(orders))
    return next((leaf for leaf in leaves if isinstance(leaf, _ENDS_OF_PROCESS)), leaves[0])


def is_disconnect(error: BaseException) -> bool:
    """Whether the error only says, in whatever words, that the client is gone.

    Frameworks say it in their own: Starlette raises its ClientDisconnect when `send` has raised
    ours. What an app raises without having ours in hand is its own; so is a group with such a one.
    """
    return all(_stems_from_disconnect(leaf) for leaf in _leaves(error))


def _stems_from_disconnect(error: BaseException) -> bool:
    at: BaseException | None = error
    seen: set[int] = set()  # `raise error from error` makes a circle
    while at is not None and id(at) not in seen:
        if all(isinstance(leaf, ClientDisconnected) for leaf in _leaves(at)):
            return True
        seen.add(id(at))
        at = at.__cause__ or at.__context__
    return False


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for each in error.exceptions:
        yield from _leaves(each)
