"""What a run is measured with: the memory of the process, quantiles, and what machine this is."""

from __future__ import annotations

import os
import platform
import sys
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

_STATM = Path("/proc/self/statm")


def resident_memory() -> int:
    """Return the bytes of memory that this process occupies now.

    Where the system does not tell (macOS), the most that it ever did: the same, as long as each
    run is larger than those before it.
    """
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource  # noqa: PLC0415  # missing on Windows, where the rest need not fail

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which this share of ordered values lies; 0 of none at all."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def histogram(ordered: Sequence[float], bins: int) -> list[int]:
    """Count ordered values in so many equal steps from 0 to the largest of them."""
    if not ordered:
        return [0] * bins
    edges = [ordered[-1] * number / bins for number in range(1, bins)]
    below = [0, *(bisect_left(ordered, edge) for edge in edges), len(ordered)]
    return [after - before for before, after in pairwise(below)]


def machine() -> str:
    """Say in a few words what this was measured on."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}, {python}"
