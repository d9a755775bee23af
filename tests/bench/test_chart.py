"""The drawing and the page: well-formed, complete, and without anything from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from minisession.bench import Report, draw, write_page
from minisession.bench.chart import SIZE, duration, ticks
from tests.bench.samples import report, report_of_few, report_with_findings

SVG = "{http://www.w3.org/2000/svg}"
REPORTS = [report(), report_of_few(), report_with_findings()]


def texts(drawing: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(drawing).iter(f"{SVG}text")]


@pytest.mark.parametrize("of", REPORTS, ids=["good", "few", "bad"])
def test_all_that_is_drawn_is_on_the_sheet(of: Report) -> None:
    root = ET.fromstring(draw(of))

    for element in root.iter():
        for name in ("x", "x1", "x2", "cx"):
            assert 0 <= float(element.get(name, "0")) <= SIZE[0]
        for name in ("y", "y1", "y2", "cy"):
            assert 0 <= float(element.get(name, "0")) <= SIZE[1]


def test_the_drawing_has_a_bar_for_each_step_and_a_dot_for_each_run() -> None:
    root = ET.fromstring(draw(report()))

    assert len(root.findall(f"{SVG}circle")) == 2 * 3
    assert len(root.findall(f"{SVG}rect[@class='bar']")) == 60


def test_the_drawing_names_its_figures() -> None:
    shown = texts(draw(report()))

    assert {"0", "20,000", "500 /s", "12.0 KiB", "p50 510 ms", "p99 1 s"} <= set(shown)
    assert "the request alone, no session: 5 KiB" in shown


def test_what_was_found_stands_out() -> None:
    root = ET.fromstring(draw(report_with_findings()))

    [bad] = root.findall(f"{SVG}text[@class='figure bad']")
    assert bad.text == "3"


def test_a_memory_that_is_not_known_is_not_drawn() -> None:
    drawing = draw(report_of_few())

    assert "Too few sessions to tell: take more tasks." in texts(drawing)
    assert len(ET.fromstring(drawing).findall(f"{SVG}circle")) == 2


@pytest.mark.parametrize("written", [draw, write_page])
def test_nothing_is_loaded_from_elsewhere(written: object) -> None:
    assert callable(written)
    text = written(report_with_findings()).replace("http://www.w3.org/2000/svg", "")

    assert re.findall(r"https?:|//|@import|<script|href|src=|url\(", text) == []


def test_the_page_has_the_drawing_the_table_and_what_was_found() -> None:
    page = write_page(report_with_findings())
    HTMLParser().feed(page)

    assert draw(report_with_findings()) in page
    assert "<td>20,000</td>" in page
    assert 'class="bad">in a stream: visitor 1 saw &#x27;x&#x27; of &lt;2&gt;</dd>' in page


@pytest.mark.parametrize(
    ("top", "marks"),
    [
        (0.0, [0, 1]),
        (4.0, [0, 1, 2, 3, 4]),
        (7.3, [0, 2, 4, 6, 8]),
        (0.9, [0, 0.25, 0.5, 0.75, 1]),
        (1700.0, [0, 500, 1000, 1500, 2000]),
    ],
)
def test_a_scale_has_round_marks(top: float, marks: list[float]) -> None:
    assert ticks(top) == pytest.approx(marks)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0"), (0.0042, "4.2 ms"), (0.5, "500 ms"), (14.24, "14.2 s")]
)
def test_a_time_is_shown_in_the_unit_that_suits_it(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
