"""Are sessions kept apart, and what do they cost, on both event loops and in both local stores?

    python benchmarks/isolation.py [--tasks 20000] [--json FILE]

Runs `minisession bench isolation` for each of them, in a process of its own so that none finds the
memory of another, and prints the table of docs/how-to/measure-isolation.md. Exits with 1 if one
of them has found cross-talk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STORES = {"memory": "memory://", "sqlite": "sqlite:///{folder}/sessions.db"}
BACKENDS = ("asyncio", "trio")
HEAD = (
    "| store | loop | cross-talk, lost, failed | tasks/s | p50 | p99 | CPU per request"
    " | memory per live session | of it the request | growth of time, CPU, memory |"
)


def measure(tasks: int, store: str, backend: str) -> dict[str, Any]:
    """Run the command once; return its JSON."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        url = STORES[store].format(folder=folder)
        command = [sys.executable, "-m", "minisession", "bench", "isolation", "--json", str(result)]
        command += ["--tasks", str(tasks), "--store", url, "--backend", backend]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        values: dict[str, Any] = json.loads(result.read_text())
        return values


def line(values: dict[str, Any]) -> str:
    """One line of the table."""
    run, growth = values["runs"][-1], values["growth"]
    found = [values[what] for what in ("cross_talk", "lost", "failed")]
    memory = (run["memory_per_session"], values["memory_per_request_without_session"])
    cells = [
        values["store"],
        values["backend"],
        ", ".join(map(str, found)),
        f"{run['tasks_per_second']:.0f}",
        *(f"{run['latency'][name]:.1f} s" for name in ("p50", "p99")),
        f"{run['cpu_per_request'] * 1e6:.0f} µs",
        *("–" if each is None else f"{each / 1024:.1f} KiB" for each in memory),
        ", ".join("–" if each is None else f"× {each:.2f}" for each in growth.values()),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--json", type=Path, help="write everything that was measured")
    options = parser.parse_args()
    results = [measure(options.tasks, store, backend) for store in STORES for backend in BACKENDS]
    print(HEAD, "|---" * HEAD.count(" | ") + "|---|", *map(line, results), sep="\n")
    print(f"\n{options.tasks:,} tasks, {results[0]['date']}, {results[0]['machine']}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
