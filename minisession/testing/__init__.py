"""What authors of stores and of applications need for their own tests.

check_store.py   the conformance suite: the store contract, clause by clause
_races/          the race kit: one scenario in many orders, on both backends
"""

from __future__ import annotations

from ._races.found import RaceFound
from ._races.run import virtual_time
from ._races.schedule import Schedule
from ._races.search import explore, explore_all, replay
from .check_store import Clause, ContractBroken, check_clause, check_store, clauses

__all__ = [
    "Clause",
    "ContractBroken",
    "RaceFound",
    "Schedule",
    "check_clause",
    "check_store",
    "clauses",
    "explore",
    "explore_all",
    "replay",
    "virtual_time",
]
