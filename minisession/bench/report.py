"""The results: as values, as the table that a terminal shows, as JSON. Nothing is measured here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from .findings import EXAMPLES, Findings
from .gauges import histogram, quantile

BINS: Final = 60  # of the distribution: enough to see its shape, few enough to be smooth
KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Mixture:
    """How many visitors did what; a visitor may do several things."""

    with_children: int
    with_threads: int
    streams: int
    logins: int
    hung_up: int


@dataclass(frozen=True, slots=True)
class Run:
    """What was measured of one number of visitors at once.

    Attributes:
        tasks: how many visitors there were, each a task of its own.
        alive: how many of them had a session and an open request at the same moment.
        requests: how many requests they sent.
        mixture: what they did.
        seconds: from the start of the first visitor to the end of the last.
        cpu_seconds: processor time of the whole process meanwhile, threads included.
        memory: bytes that the process had grown by at the moment when all were alive.
        memory_per_session: of these, a session and the open request that it belongs to; None
            where they were too few to tell.
        latencies: seconds that each answered request took, ordered.
        findings: what the visitors saw.
    """

    tasks: int
    alive: int
    requests: int
    mixture: Mixture
    seconds: float
    cpu_seconds: float
    memory: int
    memory_per_session: float | None
    latencies: Sequence[float]
    findings: Findings

    @property
    def tasks_per_second(self) -> float:
        """Visitors that came, stayed and left in a second."""
        return self.tasks / self.seconds

    @property
    def seconds_per_task(self) -> float:
        """The time of the run, divided by its visitors."""
        return self.seconds / self.tasks

    @property
    def cpu_per_task(self) -> float:
        """Seconds of processor time, which other programs on the machine hardly disturb."""
        return self.cpu_seconds / self.tasks

    @property
    def cpu_per_request(self) -> float:
        """Seconds of processor time."""
        return self.cpu_seconds / self.requests

    def latency(self, share: float) -> float:
        """Return the seconds within which this share of the requests was answered."""
        return quantile(self.latencies, share)


@dataclass(frozen=True, slots=True)
class Report:
    """All that one call of the benchmark has measured.

    Attributes:
        backend: asyncio or trio.
        store: the kind of the store; not its URL, which may hold a password.
        seed: what the visitors' manners were drawn from.
        warm_up: a run before the others, of which only the findings count.
        runs: ascending; the last is the one that was asked for.
        memory_without_session: bytes of an open request that has no session, among as many; None
            where they were too few to tell.
        machine: what it was measured on.
        date: the day, as in ISO 8601.
    """

    backend: str
    store: str
    seed: int
    warm_up: Run
    runs: Sequence[Run]
    memory_without_session: float | None
    machine: str
    date: str

    @property
    def run(self) -> Run:
        """The run that was asked for."""
        return self.runs[-1]

    @property
    def findings(self) -> Findings:
        """What was found in all runs together."""
        each = [run.findings for run in (self.warm_up, *self.runs)]
        return Findings(
            looks=sum(findings.looks for findings in each),
            cross_talk=sum(findings.cross_talk for findings in each),
            lost=sum(findings.lost for findings in each),
            failed=sum(findings.failed for findings in each),
            examples=[example for findings in each for example in findings.examples][:EXAMPLES],
        )

    @property
    def requests(self) -> int:
        """All requests of all runs."""
        return self.warm_up.requests + sum(run.requests for run in self.runs)

    @property
    def time_growth(self) -> float:
        """How many times as long a task takes in the largest run as in the smallest."""
        return self.run.seconds_per_task / self.runs[0].seconds_per_task

    @property
    def cpu_growth(self) -> float:
        """How many times as much processor time a task takes in the largest run."""
        return self.run.cpu_per_task / self.runs[0].cpu_per_task

    @property
    def memory_growth(self) -> float | None:
        """How many times as much memory a session takes in the largest run as in the smallest."""
        known = [run.memory_per_session for run in self.runs if run.memory_per_session]
        return known[-1] / known[0] if len(known) == len(self.runs) else None


def as_json(report: Report) -> str:
    """Return everything as JSON; times in seconds, memory in bytes."""
    findings = report.findings
    values = {
        "benchmark": "isolation",
        "date": report.date,
        "machine": report.machine,
        "backend": report.backend,
        "store": report.store,
        "seed": report.seed,
        "is_clean": findings.is_clean,
        **asdict(findings),
        "runs": [_run_as_values(run) for run in report.runs],
        "memory_per_request_without_session": _rounded(report.memory_without_session, 0),
        "growth": {
            "time_per_task": _rounded(report.time_growth, 3),
            "cpu_per_task": _rounded(report.cpu_growth, 3),
            "memory_per_session": _rounded(report.memory_growth, 3),
        },
    }
    return json.dumps(values, indent=2) + "\n"


def _run_as_values(run: Run) -> dict[str, Any]:
    longest = run.latency(1)
    return {
        "tasks": run.tasks,
        "alive_at_once": run.alive,
        "requests": run.requests,
        "mixture": asdict(run.mixture),
        "seconds": round(run.seconds, 3),
        "tasks_per_second": round(run.tasks_per_second, 1),
        "cpu_per_request": round(run.cpu_per_request, 6),
        "latency": {
            "p50": round(run.latency(0.5), 4),
            "p90": round(run.latency(0.9), 4),
            "p99": round(run.latency(0.99), 4),
            "max": round(longest, 4),
            "histogram": {"step": longest / BINS, "counts": histogram(run.latencies, BINS)},
        },
        "memory_per_session": _rounded(run.memory_per_session, 0),
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def as_table(report: Report) -> str:
    """Return what a terminal shows in the end."""
    return "\n".join([*_verdict(report), "", *_runs(report), "", *_growth(report), ""])


def headline(report: Report) -> str:
    """Say in one line what was run."""
    return (
        f"{report.run.tasks:,} visitors at once on {report.backend}, store {report.store},"
        f" seed {report.seed}"
    )


def _verdict(report: Report) -> list[str]:
    findings = report.findings
    lines = [
        f"isolation: {headline(report)}",
        "",
        f"  cross-talk  {findings.cross_talk:>9,}  looks that met another visitor's value,"
        f" of {findings.looks:,}",
        f"  lost        {findings.lost:>9,}  looks that did not meet just what was written",
        f"  failed      {findings.failed:>9,}  requests, of {report.requests:,}",
    ]
    return [*lines, *(f"    {example}" for example in findings.examples)]


HEAD: Final = (
    "tasks",
    "alive at once",
    "tasks/s",
    "p50 ms",
    "p99 ms",
    "CPU µs/request",
    "KiB/session",
)


def cells(run: Run) -> tuple[str, ...]:
    """Return the line of one run, in the order of `HEAD`."""
    return (
        f"{run.tasks:,}",
        f"{run.alive:,}",
        f"{run.tasks_per_second:,.0f}",
        f"{run.latency(0.5) * 1e3:,.0f}",
        f"{run.latency(0.99) * 1e3:,.0f}",
        f"{run.cpu_per_request * 1e6:,.0f}",
        in_kib(run.memory_per_session),
    )


def in_kib(memory: float | None) -> str:
    """Return bytes as KiB, or a dash for what is not known."""
    return "–" if memory is None else f"{memory / KIB:,.1f}"


def _runs(report: Report) -> list[str]:
    widths = [max(len(title), 9) for title in HEAD]
    lines = [HEAD, *map(cells, report.runs)]
    return [
        "  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    ]


def _growth(report: Report) -> list[str]:
    return [
        f"  growth      {growth(report)}",
        f"  memory      {memory(report)}",
        f"  mixed in    {mixed_in(report.run.mixture)}",
        f"  measured    {report.date} on {report.machine}",
    ]


def growth(report: Report) -> str:
    """Say what becomes of the cost of one visitor when there are many more."""
    parts = [f"× {report.time_growth:.2f} time per task", f"× {report.cpu_growth:.2f} CPU"]
    if report.memory_growth is not None:
        parts.append(f"× {report.memory_growth:.2f} memory per session")
    return f"{', '.join(parts)}, from {report.runs[0].tasks:,} to {report.run.tasks:,} tasks"


def memory(report: Report) -> str:
    """Say how memory was measured."""
    without = in_kib(report.memory_without_session)
    return (
        "resident, while all are alive, a session and its open request;"
        f" {without} KiB is such a request without a session"
    )


def mixed_in(mixture: Mixture) -> str:
    """Say how many visitors did what."""
    return (
        f"{mixture.with_children:,} with child tasks, {mixture.with_threads:,} with threads,"
        f" {mixture.streams:,} streams, {mixture.logins:,} logins,"
        f" {mixture.hung_up:,} requests cut off"
    )
