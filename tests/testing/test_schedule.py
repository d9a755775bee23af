"""Schedules as numbers: where they come from, how they are written, and how they are shortened."""

from __future__ import annotations

from math import factorial

import pytest

from minisession.testing import Schedule
from minisession.testing._races.ready import Ready
from minisession.testing._races.schedule import counted, next_choices
from minisession.testing._races.shrink import MAX_RUNS, shrunk


def chosen(schedule: Schedule, ways: list[int]) -> list[int]:
    return [schedule.choose(n) for n in ways]


WAYS = [2, 3, 1, 5, 2, 2, 4] * 5


def test_the_same_seed_makes_the_same_choices_and_others_make_others() -> None:
    walks = [chosen(Schedule.seeded(seed), WAYS) for seed in [*range(100), *range(100)]]

    assert walks[:100] == walks[100:]
    assert len({tuple(walk) for walk in walks}) > 90
    assert all(0 <= choice < n for walk in walks for choice, n in zip(walk, WAYS, strict=True))


def test_every_choice_is_made_by_some_seed() -> None:
    first = {tuple(chosen(Schedule.seeded(seed), [2, 3])) for seed in range(100)}

    assert first == {(one, other) for one in range(2) for other in range(3)}


@pytest.mark.parametrize(
    ("choices", "trace"),
    [
        ([], ""),
        ([0, 0, 0], ""),
        ([1], "0:1"),
        ([0, 0, 3, 0, 1, 0, 0], "2:3 4:1"),
        ([0, 2, 2, 2, 1, 1, 0], "1:2x3 4:1x2"),
    ],
)
def test_a_trace_names_what_is_not_first_come_first_served(choices: list[int], trace: str) -> None:
    schedule = counted(choices)
    chosen(schedule, [9] * len(choices))

    assert schedule.trace == trace
    assert chosen(Schedule.replayed(trace), [9] * len(choices)) == choices


def test_one_of_one_is_no_choice() -> None:
    schedule = Schedule.replayed("0:1 1:2")

    assert chosen(schedule, [1, 2, 1, 1, 3]) == [0, 1, 0, 0, 2]
    assert schedule.choices == [1, 2]


def test_a_trace_of_a_program_that_has_changed_chooses_what_there_is() -> None:
    assert chosen(Schedule.replayed("0:7 9:1"), [2, 2]) == [1, 0]


@pytest.mark.parametrize(
    "text", ["1", "1:", ":1", "2:1 1:1", "1:1 1:2", "1:-1", "1:1x2 2:1", "seed 3"]
)
def test_what_is_no_trace_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a trace cannot contain"):
        Schedule.replayed(text)


@pytest.mark.parametrize("choice", [-1, 2])
def test_a_source_must_choose_what_there_is(choice: int) -> None:
    with pytest.raises(ValueError, match=r"it may be 0\.\.1"):
        Schedule(lambda _: choice).choose(2)


def test_a_schedule_shows_its_trace() -> None:
    schedule = Schedule.replayed("1:1")
    chosen(schedule, [2, 2, 2])

    assert repr(schedule) == "<Schedule '1:1' of 3 choices>"


def test_depth_first_every_schedule_comes_once() -> None:
    seen = []
    choices: list[int] | None = []
    while choices is not None:
        schedule = counted(choices)
        seen.append(tuple(chosen(schedule, [4, 3, 2])))
        choices = next_choices(schedule)

    assert len(seen) == len(set(seen)) == factorial(4)


def test_what_is_ready_keeps_its_turn_and_arrives_by_age() -> None:
    choices = iter([2, 0, 0, 0])
    steps: Ready[int] = Ready(lambda step: step, lambda _: next(choices))
    for step in (3, 1, 2):
        steps.add(step)

    taken = [steps.take()]
    steps.add(0)
    taken += [steps.take() for _ in range(len(steps))]

    assert taken == [3, 1, 2, 0]


def test_a_failing_schedule_is_made_short() -> None:
    tried = []

    def fails(choices: list[int]) -> list[int] | None:
        tried.append(choices)
        return choices if choices[3] == 2 and choices[17] == 1 else None

    shrunk([(3 * place) % 5 for place in range(40)][:3] + [2] + [1] * 36, fails)

    shortest = [choices for choices in tried if choices[3] == 2 and choices[17] == 1][-1]
    assert {place: choice for place, choice in enumerate(shortest) if choice} == {3: 2, 17: 1}
    assert len(tried) <= MAX_RUNS


@pytest.mark.parametrize("length", [0, 1, 500, 30_000])
def test_shortening_gives_up_soon(length: int) -> None:
    runs = []

    def fails(choices: list[int]) -> None:
        runs.append(len(choices))

    shrunk([1] * length, fails)

    assert len(runs) <= MAX_RUNS
    assert sum(runs) <= 100_000
