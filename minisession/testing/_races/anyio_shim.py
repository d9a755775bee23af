"""Where anyio asks its backend for threads, ours are put in their place.  # backend shim

It patches the class of the backend, because a function of `anyio.to_thread` may have been imported
by its name long before.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from anyio._core._eventloop import threadlocals
from anyio.lowlevel import checkpoint_if_cancelled, current_token

from .threads import Threads, asked_from_thread

__all__ = ["controlled_threads"]

_OURS = "the loop of this run"


@contextmanager
def controlled_threads(backend: type[Any], threads: Threads) -> Iterator[None]:
    """Let `anyio.to_thread` and `anyio.from_thread` use these threads."""
    patches: dict[str, Callable[..., Any]] = {
        "run_sync_in_worker_thread": partial(_to_thread, backend, threads),
        "run_async_from_thread": _run,
        "run_sync_from_thread": _run_sync,
        "check_cancelled": _check_cancelled,
    }
    originals = {name: vars(backend)[name] for name in patches}
    for name, patch in patches.items():
        setattr(backend, name, staticmethod(patch))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(backend, name, original)


async def _to_thread(  # noqa: PLR0917  # the last four are anyio's
    backend: type[Any], threads: Threads, func: Callable[..., Any], args: tuple[Any, ...],
    abandon_on_cancel: bool = False, limiter: Any = None,
) -> Any:  # fmt: skip
    token = current_token()

    def call() -> Any:
        with _known_to_anyio(backend, token):
            return func(*args)

    return await threads.run(call, abandon_on_cancel=abandon_on_cancel, limiter=limiter)


@contextmanager
def _known_to_anyio(backend: type[Any], token: object) -> Iterator[None]:
    """Let `anyio.from_thread` find its backend in this thread."""
    threadlocals.current_async_backend = backend  # before anyio 4.11, whose tokens name theirs
    threadlocals.current_token = token if hasattr(token, "backend_class") else _OURS
    try:
        yield
    finally:
        del threadlocals.current_async_backend, threadlocals.current_token


def _run(
    func: Callable[..., Coroutine[Any, Any, Any]], args: tuple[Any, ...], token: object
) -> Any:
    _refuse(token)
    return asked_from_thread(partial(func, *args))


def _run_sync(func: Callable[..., Any], args: tuple[Any, ...], token: object) -> Any:
    _refuse(token)

    async def call() -> Any:
        return func(*args)

    return asked_from_thread(call)


def _check_cancelled() -> None:
    asked_from_thread(checkpoint_if_cancelled)


def _refuse(token: object) -> None:
    if token not in (None, _OURS):
        raise RuntimeError(
            "under `explore` a thread cannot call into a loop by a token or a BlockingPortal, which"
            " wait for it uncontrolled; start it with anyio.to_thread.run_sync, and call"
            " anyio.from_thread.run(function) in it"
        )
