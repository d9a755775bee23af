"""The results as one HTML page that needs nothing else: the drawing, and the figures in words."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from .chart import draw
from .report import HEAD, Report, cells, growth, headline, memory, mixed_in

STYLE = """
:root { color-scheme: light dark; --page: #f4f6f5; --card: #fff; --line: #d8dfdc;
  --text: #17211e; --soft: #55645f; --bad: #b42318 }
@media (prefers-color-scheme: dark) {
  :root { --page: #0e1513; --card: #17211e; --line: #2c3a36; --text: #e6edea; --soft: #a1b2ac;
    --bad: #ff8a7d }
}
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem; background: var(--page);
  color: var(--text); font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif }
section { margin: 0 0 1rem; padding: 1rem 1.25rem; background: var(--card);
  border: 1px solid var(--line); border-radius: .9rem; overflow-x: auto }
section.chart { padding: 0 }
.chart svg { display: block; width: 100%; min-width: 40rem; height: auto }
h2 { margin: 0 0 .5rem; font-size: 1.05rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem 0 .3rem 1.6rem; text-align: right; white-space: nowrap }
th:first-child, td:first-child { padding-left: 0 }
th { color: var(--soft); font-weight: 500; border-bottom: 1px solid var(--line) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; margin: 0 }
dt { color: var(--soft) }
dd { margin: 0 }
.bad { color: var(--bad) }
"""


def write_page(report: Report) -> str:
    """Return the page."""
    title = f"minisession bench isolation: {headline(report)}"
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n"
        f'<section class="chart">{draw(report)}</section>\n'
        f"<section><h2>Each number of visitors</h2>{_table(report)}</section>\n"
        f"<section><h2>What this is</h2>{_facts(report)}</section>\n</html>\n"
    )


def _table(report: Report) -> str:
    head = _row("th", HEAD)
    body = "".join(_row("td", cells(run)) for run in report.runs)
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def _row(kind: str, texts: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{kind}>{escape(text)}</{kind}>" for text in texts) + "</tr>"


def _facts(report: Report) -> str:
    findings = report.findings
    facts = {
        "cross-talk": f"{findings.cross_talk:,} of {findings.looks:,} looks met another's value",
        "lost": f"{findings.lost:,} looks did not meet just what was written",
        "failed": f"{findings.failed:,} of {report.requests:,} requests",
        "growth": growth(report),
        "memory": memory(report),
        "mixed in": mixed_in(report.run.mixture),
        "measured": f"{report.date} on {report.machine}",
    }
    lines = [f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts.items()]
    lines += [f'<dt>found</dt><dd class="bad">{escape(one)}</dd>' for one in findings.examples]
    return f"<dl>{''.join(lines)}</dl>"
