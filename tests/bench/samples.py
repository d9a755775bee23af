"""A report as a benchmark would make it, for the tests of what is made of it."""

from __future__ import annotations

from dataclasses import replace

from minisession.bench.findings import Findings
from minisession.bench.report import Mixture, Report, Run

KIB = 1024


def run(tasks: int = 20_000, memory_per_session: float | None = 12 * KIB) -> Run:
    return Run(
        tasks=tasks,
        alive=tasks,
        requests=tasks * 2,
        mixture=Mixture(with_children=5, with_threads=4, streams=3, logins=2, hung_up=1),
        seconds=tasks * 0.002,
        cpu_seconds=tasks * 0.001,
        memory=tasks * 12 * KIB,
        memory_per_session=memory_per_session,
        latencies=[number / 100 for number in range(1, 101)],
        findings=Findings(looks=tasks * 4),
    )


def report(*runs: Run) -> Report:
    return Report(
        backend="trio",
        store="memory",
        seed=1,
        warm_up=run(100),
        runs=runs or (run(2_000), run(5_000), run()),
        memory_without_session=5 * KIB,
        machine="2 CPUs, <Linux> & more",
        date="2026-11-23",
    )


def report_with_findings() -> Report:
    found = Findings(looks=9, cross_talk=3, examples=["in a stream: visitor 1 saw 'x' of <2>"])
    return report(run(2_000), replace(run(), findings=found))


def report_of_few() -> Report:
    few = report(run(100, None), run(1_000, None))
    return replace(few, memory_without_session=None)
