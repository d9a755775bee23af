"""Worker threads under control: one runs only while the loop's thread stands still.

So what a thread does is one step of the task that waits for it, until it calls back into the loop
(`anyio.from_thread`); then the loop goes on, with any other steps, and the thread stands still.
They are real threads, because code may behave differently in one, as ours does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from .stuck import Stuck

__all__ = ["Threads", "asked_from_thread"]

T = TypeVar("T")

PATIENCE = 30
"""Seconds of real time, far more than a step takes. Beyond it the threads wait for each other."""

_here = threading.local()


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """What a function returned or raised."""

    value: T | None
    error: BaseException | None

    def get(self) -> T:
        """Return what was returned, or raise what was raised."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Question:
    """What a thread wants to be run in the loop, in the thread's context."""

    function: Callable[[], Coroutine[Any, Any, Any]]
    context: Context


class _Thread:
    """A thread that is kept for the next call."""

    def __init__(self) -> None:
        self._to_thread: SimpleQueue[Any] = SimpleQueue()
        self._to_loop: SimpleQueue[Result[Any] | Question] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="thread of a run", daemon=True)
        self._thread.start()

    def go_on(self, message: Any) -> Result[Any] | Question:
        """Stand still until the thread has ended its call, or asks something of the loop."""
        self._to_thread.put(message)
        try:
            return self._to_loop.get(timeout=PATIENCE)
        except Empty:
            raise Stuck(
                f"a thread works or waits for {PATIENCE} s, and while it does nothing else runs."
                " Does it wait for another task or thread?"
            ) from None

    def end(self) -> None:
        self._to_thread.put(None)
        self._thread.join()

    def ask(self, question: Question) -> Any:
        """Have the loop do something; called in the thread."""
        self._to_loop.put(question)
        return self._to_thread.get().get()

    def _serve(self) -> None:
        _here.thread = self
        while (function := self._to_thread.get()) is not None:
            self._to_loop.put(_result_of(function))
            del function


def _result_of(function: Callable[[], T]) -> Result[T]:
    try:
        return Result(function(), None)
    except BaseException as error:  # noqa: BLE001  # raised again where it belongs
        return Result(None, error)


class Threads:
    """The threads of a search. No two run at a time, so one is enough until it stands still."""

    def __init__(self) -> None:
        self._idle: list[_Thread] = []

    def end(self) -> None:
        """End them, except for one that never came back."""
        for thread in self._idle:
            thread.end()

    async def run(
        self, function: Callable[[], T], *, abandon_on_cancel: bool, limiter: Any = None
    ) -> T:
        """Do what `anyio.to_thread.run_sync` does; other tasks run before it and after it."""
        context = copy_context()
        async with limiter or anyio.to_thread.current_default_thread_limiter():
            result = await self._run(partial(context.run, function))
            if abandon_on_cancel:
                await anyio.lowlevel.checkpoint()
            else:
                await anyio.lowlevel.cancel_shielded_checkpoint()
        return result.get()

    async def _run(self, function: Callable[[], T]) -> Result[T]:
        thread = self._idle.pop() if self._idle else _Thread()
        message = thread.go_on(function)
        while isinstance(message, Question):
            message = thread.go_on(await _answer(message))
        self._idle.append(thread)
        return message


async def _answer(question: Question) -> Result[Any]:
    results: list[Result[Any]] = []

    async def answer() -> None:
        try:
            results.append(Result(await question.function(), None))
        except Exception as error:  # noqa: BLE001  # raised again in the thread
            results.append(Result(None, error))

    try:
        async with anyio.create_task_group() as tasks:
            question.context.run(tasks.start_soon, answer)
    except BaseException as error:  # noqa: BLE001  # cancelled: the thread is told, as it would be
        return results[0] if results else Result(None, error)
    return results[0]


def asked_from_thread(function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do what `anyio.from_thread.run` does: run something in the loop and wait for it.

    Only in our own threads: anyio itself refuses any other that has no token.
    """
    thread: _Thread = _here.thread
    answer: T = thread.ask(Question(function, copy_context()))
    return answer
