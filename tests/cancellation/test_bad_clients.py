"""Clients that go at each call of `receive` or `send`, in every way a server can tell of it."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path

import pytest

from tests.cancellation.bad_client import BAD_CLIENTS, BadClient, CancelsTheRequest
from tests.cancellation.conftest import STORES, counted
from tests.cancellation.site import PAGES, Page, Site, Visit
from tests.cancellation.talks import TALKS, Conversation
from tests.cancellation.trial import Trial
from tests.effort import SOAK, Tally

pytestmark = pytest.mark.anyio


KINDS = [
    pytest.param(backend, kind, id=f"{backend}-{kind.__name__}")
    for backend, kinds in [("asyncio", BAD_CLIENTS), ("trio", [BadClient, CancelsTheRequest])]
    for kind in (BAD_CLIENTS if SOAK else kinds)
]


@pytest.mark.parametrize("store", STORES if SOAK else ["remote"])
@pytest.mark.parametrize(("anyio_backend", "kind"), KINDS)
@pytest.mark.parametrize("page", [*PAGES, *TALKS], ids=str)
async def test_a_client_that_goes_leaves_a_state_before_or_after_and_nothing_else(
    store: str, tmp_path: Path, kind: type[BadClient], page: Page, tally: Tally
) -> None:
    site = Site(page, STORES[store](tmp_path))
    client = kind(site.middleware)
    async with site.middleware.manager as sessions:
        visit = (Conversation if page in TALKS else Visit)(site, Trial(sessions))

        async def prepare() -> Awaitable[object]:
            site.way_in = site.middleware
            await visit.begin()
            site.way_in = visit.browser.app = client
            return visit.go()

        assert await counted(client.goes, tally, prepare, visit.check) >= 2
