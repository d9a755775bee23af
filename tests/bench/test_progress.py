"""What is seen while a benchmark runs: a bar where somebody sits, lines where nobody does."""

from __future__ import annotations

from io import StringIO

from minisession.bench import Progress


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: StringIO) -> str:
    progress = Progress(stream)
    progress.begin("8 visitors", 8)
    for done in range(8):
        progress.update(done)
    progress.end()
    return stream.getvalue()


def test_elsewhere_each_quarter_is_a_line() -> None:
    assert shown(StringIO()).splitlines() == [
        "8 visitors: 25 %",
        "8 visitors: 50 %",
        "8 visitors: 75 %",
        "8 visitors: 100 %",
    ]


def test_on_a_terminal_one_line_is_drawn_again_and_given_back() -> None:
    steps = shown(Terminal()).split("\r\x1b[K")

    assert steps[1] == "░" * 30 + "   0 %  8 visitors"
    assert steps[6] == "█" * 15 + "░" * 15 + "  50 %  8 visitors"
    assert steps[-1] == ""
    assert not any("\n" in step for step in steps)
