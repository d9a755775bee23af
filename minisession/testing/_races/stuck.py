"""Which tasks wait, and where: for a scenario that will never end."""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["Endless", "Stuck", "places"]

_BACKENDS = ("anyio", "asyncio", "trio", "outcome")


class Stuck(Exception):
    """Nothing is ready and no timer runs: a deadlock. The message shows where each task waits."""


class Endless(Exception):
    """So many steps were taken that the scenario seems to have no end."""


def places(tasks: Iterable[tuple[str, Any]]) -> str:
    """Return one line for each task, given its name and its coroutine."""
    return "\n".join(f"  {name} waits {_place(coroutine)}" for name, coroutine in tasks)


def _place(coroutine: Any) -> str:
    frames = list(_frames(coroutine))
    ours = [frame for frame in frames if not _is_of_backend(frame)]
    if not frames:
        return "nowhere: it has not begun, or has ended"
    frame = (ours or frames)[-1]
    file, line = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(file, line).strip()
    return f"at {Path(file).name}:{line}, in {frame.f_code.co_name}: {text}"


def _frames(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of a suspended coroutine, the outermost first."""
    while coroutine is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(coroutine, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                break
        else:
            return
        coroutine = getattr(coroutine, "gi_yieldfrom" if kind == "gi" else f"{kind}_await", None)


def _is_of_backend(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in _BACKENDS
