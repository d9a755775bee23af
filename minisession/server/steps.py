"""Running a coroutine in a context of its own, inside the task that awaits it.

Owns the steps of that coroutine: each runs in the given context, and somebody is told when it
suspends. A task per request would do the first; it costs a tenth of a small request.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any


class Steps(Generator[Any, Any, None]):
    """Awaits a coroutine; it finds `context`'s variables, and what it sets stays there.

    Tasks and threads that it starts inherit this context, as they would that of a task.

    Args:
        watch: called with True before each step, with False when the coroutine has suspended.
    """

    __slots__ = ("_context", "_coroutine", "_watch")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, None],
        context: Context,
        watch: Callable[[bool], None],
    ) -> None:
        self._coroutine = coroutine
        self._context = context
        self._watch = watch

    def __await__(self) -> Generator[Any, Any, None]:
        return self

    def __next__(self) -> Any:
        self._watch(True)
        suspended = self._context.run(self._coroutine.send, None)
        self._watch(False)
        return suspended

    def send(self, value: Any) -> Any:
        """Run the coroutine on with the result of what it waited for."""
        return self._step(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        """Run the coroutine on with an error, such as a cancellation."""
        return self._step(self._coroutine.throw, *error)

    def _step(self, method: Callable[..., Any], *args: Any) -> Any:
        self._watch(True)
        suspended = self._context.run(method, *args)
        self._watch(False)
        return suspended

    def close(self) -> None:
        """End a coroutine that nobody will run on."""
        self._context.run(self._coroutine.close)
