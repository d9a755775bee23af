"""What an app has raised, and whose business that is."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from minisession.server.blame import blame, is_cancelled, is_disconnect
from minisession.server.errors import ClientDisconnected

pytestmark = pytest.mark.anyio

GONE = ClientDisconnected("gone")
BUG = ValueError("a bug")
END = SystemExit(1)
INTERRUPT = KeyboardInterrupt()
CLOSED = GeneratorExit()


def raised_from(cause: BaseException | None, context: BaseException) -> BaseException:
    error = RuntimeError("wrapped")
    error.__context__, error.__cause__ = context, cause
    return error


def circle() -> BaseException:
    error = RuntimeError("from itself")
    error.__cause__ = error
    return error


def group(*errors: BaseException) -> BaseException:
    return BaseExceptionGroup("several", errors)


@pytest.mark.parametrize(
    "error",
    [
        GONE,
        group(GONE, group(GONE)),
        raised_from(GONE, BUG),
        raised_from(None, GONE),
        raised_from(None, raised_from(GONE, BUG)),
        raised_from(None, group(GONE, GONE)),
        group(raised_from(None, GONE), GONE),
    ],
)
def test_an_error_that_comes_of_the_disconnect_is_one(error: BaseException) -> None:
    assert is_disconnect(error)


@pytest.mark.parametrize(
    "error",
    [
        BUG,
        OSError("of the app's own"),
        group(GONE, BUG),
        raised_from(BUG, GONE),
        raised_from(None, group(GONE, BUG)),
        circle(),
    ],
)
def test_an_error_that_has_another_origin_is_none(error: BaseException) -> None:
    assert not is_disconnect(error)


@pytest.mark.parametrize(
    ("error", "order", "failure"),
    [
        (BUG, None, BUG),
        (CLOSED, None, CLOSED),
        (END, END, None),
        (group(CLOSED), None, [CLOSED]),
        (group(group(INTERRUPT)), INTERRUPT, None),
        (group(BUG, END), END, [BUG]),
    ],
)
async def test_only_the_end_of_the_process_is_an_order(
    error: BaseException, order: object, failure: object
) -> None:
    found = blame(error)

    assert found.order is order
    assert in_list(found.failure) == failure


async def test_a_cancellation_is_an_order_while_the_task_is_cancelled() -> None:
    assert not is_cancelled()
    with anyio.CancelScope() as scope:
        scope.cancel()
        assert is_cancelled()
        try:
            await anyio.lowlevel.checkpoint()
        except anyio.get_cancelled_exc_class() as error:
            cancellation = error
            inside = [
                blame(cancellation),
                blame(group(cancellation)),
                blame(group(BUG, cancellation)),
                blame(group(cancellation, END)),
            ]
            raise
    outside = blame(cancellation)

    assert [found.order for found in inside] == [cancellation, cancellation, cancellation, END]
    assert [in_list(found.failure) for found in inside] == [None, None, [BUG], None]
    assert outside == (None, cancellation)


def in_list(failure: BaseException | None) -> Any:
    return list(failure.exceptions) if isinstance(failure, BaseExceptionGroup) else failure
