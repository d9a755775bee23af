"""What authors of stores need for their own tests.

check_store.py   the conformance suite: the store contract, clause by clause
"""

from __future__ import annotations

from .check_store import Clause, ContractBroken, check_clause, check_store, clauses

__all__ = ["Clause", "ContractBroken", "check_clause", "check_store", "clauses"]
