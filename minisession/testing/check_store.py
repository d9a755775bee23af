"""The conformance suite for stores: the contract of `minisession.abc`, clause by clause.

In the tests of a store, with anyio's pytest plugin:

    @pytest.mark.anyio
    @pytest.mark.parametrize("clause", clauses(persistent=True), ids=lambda c: c.__name__)
    async def test_my_store_keeps(clause, tmp_path):
        await check_clause(clause, lambda: MyStore(tmp_path / "sessions"))

or all at once: `await check_store(make_store, persistent=True)`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from minisession.abc import Store

from ._clauses import batches, items, lasting, life, limits, listing, rotation
from ._clauses.trial import Clause, ContractBroken, Trial

__all__ = ["Clause", "ContractBroken", "check_clause", "check_store", "clauses"]


def clauses(*, persistent: bool = False, purges: bool = True) -> list[Clause]:
    """Return the clauses of the contract; `__name__` says what each demands.

    Args:
        persistent: whether what was committed outlives the store object. Then two calls of
            `make_store` must name the same place.
        purges: whether expired sessions stay until `purge` removes them. False for a store from
            which they go by themselves; its `purge` has nothing to do.
    """
    parts = [life, items, rotation, limits, batches, listing]
    if persistent:
        parts.append(lasting)
    room = listing.PURGES if purges else listing.EXPIRES_BY_ITSELF
    return [*(clause for part in parts for clause in part.CLAUSES), *room]


async def check_clause(clause: Clause, make_store: Callable[[], Store]) -> None:
    """Check one clause with a store of its own, which is opened and closed.

    Raises:
        ContractBroken: the store does not keep it; says what was expected and what came.
    """
    async with make_store() as store:
        await clause(Trial(clause.__name__, store, make_store, time.time()))


async def check_store(
    make_store: Callable[[], Store], *, persistent: bool = False, purges: bool = True
) -> None:
    """Check every clause; the place may hold sessions of others, which are left alone.

    Only what has expired or will within two hours may be removed, by the clauses about `purge`.

    Raises:
        ContractBroken: at the first clause that the store does not keep.
    """
    for clause in clauses(persistent=persistent, purges=purges):
        await check_clause(clause, make_store)
