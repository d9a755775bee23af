"""The results in words and figures: what the table and the JSON say."""

from __future__ import annotations

import json
from dataclasses import replace

from minisession.bench import as_json, as_table
from tests.bench.samples import report, report_of_few, report_with_findings, run


def test_the_table_has_a_line_for_each_number_of_visitors() -> None:
    lines = as_table(report()).splitlines()

    assert [line.split() for line in lines if line.strip().startswith(("2,000", "20,000"))] == [
        ["2,000", "2,000", "500", "510", "1,000", "500", "12.0"],
        ["20,000", "20,000", "500", "510", "1,000", "500", "12.0"],
    ]


def test_the_table_says_what_growth_costs() -> None:
    slower = replace(run(), seconds=60.0, cpu_seconds=25.0, memory_per_session=18 * 1024.0)

    table = as_table(report(run(2_000), slower))

    assert "× 1.50 time per task, × 1.25 CPU, × 1.50 memory per session, from 2,000 to" in table


def test_too_few_sessions_have_no_memory_of_their_own() -> None:
    few = report_of_few()

    table = as_table(few)

    assert "× 1.00 time per task, × 1.00 CPU, from 100 to 1,000 tasks" in table
    assert "– KiB" in table
    assert json.loads(as_json(few))["growth"]["memory_per_session"] is None


def test_what_was_found_is_counted_over_all_runs_and_told() -> None:
    table = as_table(report_with_findings())

    assert "cross-talk          3  looks" in table
    assert "    in a stream: visitor 1 saw 'x' of <2>" in table


def test_what_the_warm_up_found_counts_too() -> None:
    warm_up = replace(run(100), findings=report_with_findings().run.findings)

    assert not replace(report(), warm_up=warm_up).findings.is_clean


def test_the_json_has_everything_that_the_table_has() -> None:
    values = json.loads(as_json(report_with_findings()))

    assert (values["is_clean"], values["cross_talk"], values["backend"]) == (False, 3, "trio")
    assert [run["tasks"] for run in values["runs"]] == [2_000, 20_000]
    assert values["runs"][0]["latency"]["p99"] == 1.0
    assert sum(values["runs"][0]["latency"]["histogram"]["counts"]) == 100
