"""The results as one SVG: four figures, the distribution of request times, and growth.

It is drawn by hand, from a few kinds of elements, so that it needs no library, looks the same in a
page and on its own, and follows the reader's choice of light or dark. Positions are in the units of
`SIZE`; colours are in `STYLE` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, log10
from typing import Final

from .gauges import histogram
from .report import BINS, KIB, Report, headline

SIZE: Final = (960, 650)
MARGIN: Final = 32

# The properties are written out, not taken from variables, for what turns it into a PNG.
STYLE: Final = """
svg { background: #ffffff }
text { font-family: system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans",
  "DejaVu Sans", sans-serif; font-size: 13px; fill: #55645f }
.page { fill: #ffffff }
.title { font-size: 21px; font-weight: 600; fill: #17211e }
.panel { font-size: 14px; font-weight: 600; fill: #17211e }
.figure { font-size: 27px; font-weight: 600; fill: #17211e }
.bad { fill: #b42318 }
.value { font-weight: 600; fill: #17211e }
.grid { stroke: #e3e9e6 }
.axis { stroke: #9fb0aa }
.mark { stroke: #17211e; stroke-dasharray: 4 3 }
.bar { fill: #14897f }
.line { stroke: #14897f; stroke-width: 2; fill: none }
.dot { fill: #14897f; stroke: #ffffff; stroke-width: 2 }
.other { stroke: #8a6d1f; stroke-width: 2; stroke-dasharray: 6 4 }
@media (prefers-color-scheme: dark) {
  svg { background: #17211e }
  text { fill: #a1b2ac }
  .page { fill: #17211e }
  .title, .panel, .figure, .value { fill: #e6edea }
  .bad { fill: #ff8a7d }
  .grid { stroke: #2c3a36 }
  .axis { stroke: #5b6d67 }
  .mark { stroke: #e6edea }
  .bar { fill: #2fb3a5 }
  .line { stroke: #2fb3a5 }
  .dot { fill: #2fb3a5; stroke: #17211e }
  .other { stroke: #d9b44a }
}
"""


def draw(report: Report) -> str:
    """Return the whole drawing, as a file of its own or as a part of a page."""
    width, height = SIZE
    parts = [*_heading(report), *_figures(report), *_latencies(report), *_growth(report)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        f' width="{width}" height="{height}">'
        f"<title>{escape(headline(report))}</title><style>{STYLE}</style>"
        f'<rect class="page" width="{width}" height="{height}"/>{"".join(parts)}</svg>\n'
    )


@dataclass(frozen=True, slots=True)
class Panel:
    """A rectangle with two scales, both from 0 to 1 of their ranges, upwards and to the right."""

    left: float
    top: float
    width: float
    height: float

    def x(self, share: float) -> float:
        """Return the position of a share of the horizontal range."""
        return self.left + self.width * share

    def y(self, share: float) -> float:
        """Return the position of a share of the vertical range."""
        return self.top + self.height * (1 - share)

    def title(self, text: str) -> str:
        """Name the panel."""
        return _text(self.left, self.top - 28, text, "panel")

    def floor(self) -> str:
        """Draw the axis at the bottom."""
        return _line(self.x(0), self.y(0), self.x(1), self.y(0), "axis")


def ticks(top: float, about: int = 4) -> list[float]:
    """Return round numbers from 0 to the first that is not below `top`, some `about` steps."""
    if top <= 0:
        return [0.0, 1.0]
    rough = top / about
    magnitude = 10.0 ** (ceil(log10(rough)) - 1)
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough)
    return [step * number for number in range(ceil(top / step - 1e-9) + 1)]


def duration(seconds: float) -> str:
    """Return a time with the unit that suits it."""
    if seconds == 0:
        return "0"
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms"


# --- the four parts ----------------------------------------------------------------------------


def _heading(report: Report) -> list[str]:
    return [
        _text(MARGIN, 46, f"{report.run.tasks:,} sessions alive in one event loop", "title"),
        _text(
            MARGIN,
            68,
            f"minisession bench isolation · {report.backend} · store {report.store}"
            f" · seed {report.seed} · {report.date} · {report.machine}",
        ),
    ]


def _figures(report: Report) -> Iterable[str]:
    findings, run = report.findings, report.run
    memory = "–" if run.memory_per_session is None else f"{run.memory_per_session / KIB:.1f} KiB"
    # All that was found is as bad as cross-talk: none of it may hide behind a 0.
    wrong = findings.cross_talk or findings.lost or findings.failed
    what = "cross-talk" if findings.cross_talk or not wrong else "lost or failed"
    figures = [
        (f"{wrong:,}", f"{what}, in {findings.looks:,} looks", "figure bad" if wrong else "figure"),
        (f"{run.alive:,}", "sessions alive at once", "figure"),
        (f"{run.tasks_per_second:,.0f} /s", "visitors that came and left", "figure"),
        (memory, "of memory for a live session", "figure"),
    ]
    step = (SIZE[0] - 2 * MARGIN) / len(figures)
    for number, (figure, label, kind) in enumerate(figures):
        x = MARGIN + step * number
        yield _text(x, 122, figure, kind)
        yield _text(x, 143, label)


def _latencies(report: Report) -> Iterable[str]:
    run = report.run
    panel = Panel(MARGIN, 218, SIZE[0] - 2 * MARGIN, 160)
    yield panel.title("How long a request took, with all the others under way")
    longest = run.latency(1) or 1.0
    scale = ticks(longest, 8)
    counts = histogram(run.latencies, BINS)
    yield from _bars(panel, counts, longest, longest / scale[-1])
    yield panel.floor()
    for tick in scale:
        yield _text(panel.x(tick / scale[-1]), panel.y(0) + 19, duration(tick), anchor="middle")
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        yield from _mark(panel, run.latency(share), scale[-1], name)


def _bars(panel: Panel, counts: Sequence[int], longest: float, share: float) -> Iterable[str]:
    total, most = max(sum(counts), 1), max(*counts, 1)
    step = share / len(counts)
    for number, count in enumerate(counts):
        if not count:
            continue
        top = panel.y(count / most * 0.86)  # below the labels of the marks
        tip = f"up to {duration(longest * (number + 1) / len(counts))}: {count / total:.1%}"
        yield (
            f'<rect class="bar" x="{panel.x(number * step) + 0.5:.1f}" y="{top:.1f}"'
            f' width="{panel.width * step - 1:.1f}" height="{panel.y(0) - top:.1f}"'
            f' rx="1"><title>{escape(tip)}</title></rect>'
        )


def _mark(panel: Panel, value: float, top: float, name: str) -> Iterable[str]:
    x = panel.x(value / top)
    yield _line(x, panel.y(1), x, panel.y(0), "mark")
    is_far_right = value > top / 2
    anchor, offset = ("end", -6) if is_far_right else ("start", 6)
    yield _text(x + offset, panel.y(1) + 9, f"{name} {duration(value)}", "value", anchor)


def _growth(report: Report) -> Iterable[str]:
    width = (SIZE[0] - 2 * MARGIN - 56) / 2
    left, right = (Panel(MARGIN + start, 472, width, 130) for start in (0, width + 56))
    times = [(run.tasks, run.cpu_per_task) for run in report.runs]
    yield from _curve(left, "CPU time for each visitor, by their number", times, duration)
    memory = [
        (run.tasks, run.memory_per_session / KIB)
        for run in report.runs
        if run.memory_per_session is not None
    ]
    without = report.memory_without_session
    yield from _curve(
        right,
        "Memory for each live session, by their number",
        memory,
        lambda kib: f"{kib:.3g} KiB",
        None if without is None else without / KIB,
    )


def _curve(
    panel: Panel,
    title: str,
    points: Sequence[tuple[int, float]],
    say: Callable[[float], str],
    other: float | None = None,
) -> Iterable[str]:
    """Draw what one costs against how many there are; flat is good."""
    yield panel.title(title)
    if not points:
        yield _text(panel.left, panel.y(0.5), "Too few sessions to tell: take more tasks.")
        return
    scale = ticks(max(value for _, value in points) * 1.15)
    yield from _grid(panel, scale, say)
    places = [(panel.x(_place(n, points)), panel.y(value / scale[-1])) for n, value in points]
    if other is not None:
        yield from _other(panel, other, scale[-1], say)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline class="line" points="{path}"/>'
    for (count, value), (x, y) in zip(points, places, strict=True):
        yield f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
        yield _text(x, y - 12, say(value), "value", "middle")
        yield _text(x, panel.y(0) + 19, f"{count:,}", anchor="middle")
    yield panel.floor()


def _place(count: int, points: Sequence[tuple[int, float]]) -> float:
    """Return where a number stands between the smallest and the largest, by its logarithm."""
    first, last = points[0][0], points[-1][0]
    share = log10(count / first) / log10(last / first) if last > first else 0.5
    return 0.2 + 0.72 * share  # right of the scale, and with room for half a label


def _grid(panel: Panel, scale: Sequence[float], say: Callable[[float], str]) -> Iterable[str]:
    for tick in scale[1:]:
        y = panel.y(tick / scale[-1])
        yield _line(panel.x(0), y, panel.x(1), y, "grid")
        yield _text(panel.x(0), y - 4, say(tick))


def _other(panel: Panel, value: float, top: float, say: Callable[[float], str]) -> Iterable[str]:
    y = panel.y(value / top)
    yield _line(panel.x(0.16), y, panel.x(1), y, "other")
    yield _text(panel.x(1), y + 16, f"the request alone, no session: {say(value)}", anchor="end")


# --- the elements ------------------------------------------------------------------------------


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    chosen = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{chosen}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
