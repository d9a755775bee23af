"""The benchmarks that `minisession bench` runs: measured on anybody's machine, and drawn.

Like the demo they are an application like anybody's: they use the public names of the package
alone, so what they measure is what a user gets.

    isolation.py   runs more and more visitors at once, and puts together what was measured
    visitors.py    one visitor: its requests, its manner, and when it hangs up
    shop.py        the application that they visit
    findings.py    what a visitor saw, and whether it was its own
    gauges.py      memory, quantiles and the machine
    report.py      the results as values, as a table and as JSON
    progress.py    how far it is: a bar on a terminal, lines elsewhere
    chart.py       the results as an SVG
    page.py        the results as an HTML page
"""

from .chart import draw
from .isolation import measure
from .page import write_page
from .progress import Progress
from .report import Report, as_json, as_table

__all__ = ["Progress", "Report", "as_json", "as_table", "draw", "measure", "write_page"]
