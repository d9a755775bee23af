"""What counts as cross-talk, what as lost, and what is told of it."""

from __future__ import annotations

from typing import Any

import pytest

from minisession.bench.findings import EXAMPLES, Findings, tag

OWN = {"owner": tag(7, "owner"), "nested": {"deep": [tag(7, "deep")]}}


def judged(seen: dict[str, Any], *allowed: dict[str, Any]) -> Findings:
    findings = Findings()
    findings.look("here", 7, seen, allowed)
    return findings


@pytest.mark.parametrize(
    ("seen", "allowed"),
    [
        (OWN, [OWN]),
        (OWN, [{}, OWN]),
        (OWN, []),
    ],
    ids=["just as written", "one of the states that are possible", "while a sibling writes"],
)
def test_what_a_visitor_wrote_itself_is_no_finding(
    seen: dict[str, Any], allowed: list[dict[str, Any]]
) -> None:
    findings = judged(seen, *allowed)

    assert findings.is_clean
    assert findings.looks == 1


@pytest.mark.parametrize(
    "seen",
    [
        {"owner": tag(70, "owner")},
        {**OWN, "nested": {"deep": [tag(7, "deep"), tag(8, "deep")]}},
        {**OWN, "extra": tag(77, "extra")},
    ],
    ids=["all of it", "deep inside", "one key more"],
)
@pytest.mark.parametrize("allowed", [[OWN], []], ids=["known state", "unknown state"])
def test_a_value_of_somebody_else_is_cross_talk(
    seen: dict[str, Any], allowed: list[dict[str, Any]]
) -> None:
    findings = judged(seen, *allowed)

    assert (findings.cross_talk, findings.lost) == (1, 0)
    assert findings.examples[0].startswith("here: visitor 7 saw ")


@pytest.mark.parametrize(
    ("seen", "allowed", "told"),
    [
        ({}, [OWN], "nothing that it had written"),
        ({}, [], "nothing that it had written"),
        ({"owner": tag(7, "owner")}, [OWN], "'nested' not as it had written it"),
        ({**OWN, "owner": tag(7, "owner", 1)}, [OWN], "'owner' not as it had written it"),
    ],
    ids=["empty", "empty while a sibling writes", "a part", "another time"],
)
def test_what_is_missing_or_out_of_date_is_lost(
    seen: dict[str, Any], allowed: list[dict[str, Any]], told: str
) -> None:
    findings = judged(seen, *allowed)

    assert (findings.cross_talk, findings.lost) == (0, 1)
    assert findings.examples == [f"here: visitor 7 found {told}"]


def test_only_the_first_findings_are_told_and_all_are_counted() -> None:
    findings = Findings()

    for number in range(EXAMPLES + 3):
        findings.fail("/arrive", number, "answered with 503")
    findings.leak("between two requests", 1)

    assert (findings.failed, findings.cross_talk) == (EXAMPLES + 3, 1)
    assert len(findings.examples) == EXAMPLES
    assert not findings.is_clean
