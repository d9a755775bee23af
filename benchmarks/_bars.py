"""What a benchmark has measured, as one SVG of bars: a panel for each kind of load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape

from minisession.bench.chart import STYLE, ticks

WIDTH = 960
LEFT = 190  # room for the names
RIGHT = 150  # and for what is written behind the bars
ROW = 26
PANEL = 74  # what a panel needs beside its rows


@dataclass(frozen=True)
class Bar:
    """A length, and what is written behind it."""

    value: float
    words: str


def draw(title: str, panels: Mapping[str, Mapping[str, Bar]]) -> str:
    """The whole drawing."""
    parts = [_text(32, 42, title, "title")]
    top = 84.0
    for name, bars in panels.items():
        parts += _panel(name, bars, top)
        top += PANEL + ROW * len(bars)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top:.0f}" role="img"'
        f' width="{WIDTH}" height="{top:.0f}"><title>{escape(title)}</title><style>{STYLE}</style>'
        f'<rect class="page" width="{WIDTH}" height="{top:.0f}"/>{"".join(parts)}</svg>\n'
    )


def _panel(name: str, bars: Mapping[str, Bar], top: float) -> Iterable[str]:
    yield _text(32, top, name, "panel")
    scale = ticks(max(bar.value for bar in bars.values()))
    bottom = top + 16 + ROW * len(bars)
    for tick in scale:
        x = LEFT + _length(tick, scale[-1])
        yield f'<line class="grid" x1="{x:.1f}" y1="{top + 12}" x2="{x:.1f}" y2="{bottom}"/>'
        yield _text(x, bottom + 16, f"{tick:,.0f}", anchor="middle")
    for number, (row, bar) in enumerate(bars.items()):
        y = top + 18 + ROW * number
        length = _length(bar.value, scale[-1])
        yield _text(LEFT - 10, y + 14, row, anchor="end")
        yield f'<rect class="bar" x="{LEFT}" y="{y:.1f}" width="{length:.1f}" height="19" rx="2"/>'
        yield _text(LEFT + length + 8, y + 14, bar.words, "value")


def _length(value: float, most: float) -> float:
    return (WIDTH - LEFT - RIGHT) * value / most


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    chosen = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{chosen}>{escape(text)}</text>'
