"""How far a benchmark is, on stderr: a bar on a terminal, a few lines elsewhere."""

from __future__ import annotations

from typing import Final, TextIO

WIDTH: Final = 30
QUARTERS: Final = 4
_CLEAR: Final = "\r\x1b[K"  # back to the margin, and erase the line


class Progress:
    """Shows one task after the other: `begin`, `update` as often as one likes, `end`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._what = ""
        self._total = 1
        self._shown = 0

    def begin(self, what: str, total: int) -> None:
        """Start to show something that has so many steps."""
        self._what, self._total, self._shown = what, total, 0
        self.update(0)

    def update(self, done: int) -> None:
        """Show that so many steps are done."""
        if self._is_terminal:
            self._write(f"{_CLEAR}{self._bar(done)} {done * 100 // self._total:>3} %  {self._what}")
            return
        quarter = done * QUARTERS // self._total
        if quarter > self._shown:
            self._shown = quarter
            self._write(f"{self._what}: {done * 100 // self._total} %\n")

    def end(self) -> None:
        """Show that all is done."""
        self.update(self._total)
        self.clear()

    def clear(self) -> None:
        """On a terminal, give the line back."""
        if self._is_terminal:
            self._write(_CLEAR)

    def _bar(self, done: int) -> str:
        full = WIDTH * done // self._total
        return "█" * full + "░" * (WIDTH - full)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
