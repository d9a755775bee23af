"""Draws the life of a response, from the table that the server obeys, for the documentation.

    python -m tests.server.draw_response

writes docs/images/response.svg. Owns where the states stand; which of them follow each other is
said in `minisession/server/cycle.py` alone, and `test_cycle.py` compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from minisession.bench.chart import STYLE
from minisession.server.cycle import TRANSITIONS, Event, State

FILE = Path(__file__).parents[2] / "docs" / "images" / "response.svg"

SIZE = (960, 330)
BOX = (190, 56)
PLACES = {
    State.WAITING: (127, 90),
    State.HELD: (470, 90),
    State.STREAMING: (813, 90),
    State.REFUSED: (127, 250),
    State.COMPLETE: (470, 250),
    State.BROKEN: (813, 250),
}
LABELS = {Event.START: "start", Event.MORE: "more", Event.LAST: "last", Event.REFUSE: "refuse"}
ARROW = '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8"'


def draw() -> str:
    """The whole picture."""
    width, height = SIZE
    parts = [*map(box, State), *arrows()]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        f' width="{width}" height="{height}"><title>The life of a response</title>'
        f"<style>{STYLE}.box {{ fill: none; stroke: #14897f; stroke-width: 2 }}"
        f" .tip {{ fill: #9fb0aa }}</style>"
        f'<defs>{ARROW} orient="auto"><path class="tip" d="M0,0 L8,4 L0,8 z"/></marker></defs>'
        f'<rect class="page" width="{width}" height="{height}"/>{"".join(parts)}</svg>\n'
    )


def box(state: State) -> str:
    x, y = PLACES[state]
    width, height = BOX
    left, top = x - width / 2, y - height / 2
    outline = f'<rect class="box" x="{left}" y="{top}" width="{width}" height="{height}" rx="8"/>'
    return outline + text(x, y - 4, state.name, "panel") + text(x, y + 15, words(state))


def words(state: State) -> str:
    return state.value.replace("http.response.", "")


def arrows() -> Iterator[str]:
    for state, row in TRANSITIONS.items():
        for event, following in row.items():
            yield loop(state, event) if state is following else arrow(state, event, following)


def arrow(state: State, event: Event, following: State) -> str:
    (x1, y1), (x2, y2) = PLACES[state], PLACES[following]
    width, height = BOX
    if y1 == y2:
        x1, x2 = x1 + width // 2, x2 - width // 2 - 2
    else:
        y1, y2 = y1 + height // 2, y2 - height // 2 - 2
    beside = 26 if x1 == x2 else 0 if y1 == y2 else -40
    label = text((x1 + x2) / 2 + beside, (y1 + y2) / 2 - 7, LABELS[event])
    line = f'<line class="axis" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" marker-end="url(#tip)"/>'
    return line + label


def loop(state: State, event: Event) -> str:
    x, y = PLACES[state]
    top = y - BOX[1] // 2
    path = f"M{x - 30},{top} C{x - 40},{top - 44} {x + 40},{top - 44} {x + 30},{top - 2}"
    curve = f'<path class="axis" fill="none" d="{path}" marker-end="url(#tip)"/>'
    return curve + text(x, top - 40, LABELS[event])


def text(x: float, y: float, what: str, kind: str = "") -> str:
    chosen = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}" text-anchor="middle"{chosen}>{what}</text>'


if __name__ == "__main__":
    FILE.write_text(draw())
