"""The instruments: quantiles, histograms, and the memory of this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from minisession.bench import gauges
from minisession.bench.gauges import histogram, quantile, resident_memory

HUNDRED = [number / 100 for number in range(1, 101)]
MIB = 1 << 20


@pytest.mark.parametrize(("share", "value"), [(0.0, 0.01), (0.5, 0.51), (0.99, 1.0), (1.0, 1.0)])
def test_a_quantile_is_one_of_the_values(share: float, value: float) -> None:
    assert quantile(HUNDRED, share) == value


def test_a_histogram_counts_every_value_once() -> None:
    assert histogram(HUNDRED, 4) == [24, 25, 25, 26]


def test_nothing_measured_is_no_error() -> None:
    assert (quantile([], 0.5), histogram([], 3)) == (0.0, [0, 0, 0])


def test_memory_that_is_filled_is_seen() -> None:
    before = resident_memory()
    ballast = bytearray(b"x") * (64 * MIB)

    assert resident_memory() >= before + 60 * MIB
    del ballast


def test_without_proc_the_most_that_there_ever_was_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = resident_memory()
    monkeypatch.setattr(gauges, "_STATM", Path("/no/such/file"))

    assert now <= resident_memory() < 100 * now  # a mistaken unit is a factor of 1024
