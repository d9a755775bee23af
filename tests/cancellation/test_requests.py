"""Every kind of request and WebSocket, struck at each of its suspension points, in every way.

The session is in a state before or after, never between; what the client was told is so; no
cookie came for what is not stored; and nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from minisession.abc import Store
from tests.cancellation.conftest import Sweep, cases, is_worth_it
from tests.cancellation.site import PAGES, Page, Site, Visit
from tests.cancellation.talks import TALKS, Conversation
from tests.cancellation.trial import Trial

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("setting", "page"), cases([*PAGES, *TALKS], is_worth_it), indirect=["setting"]
)
async def test_a_request_leaves_a_state_before_or_after_and_nothing_else(
    any_store: Store, swept: Sweep, page: Page
) -> None:
    site = Site(page, any_store)
    async with site.middleware.manager as sessions:
        visit = (Conversation if page in TALKS else Visit)(site, Trial(sessions))

        async def prepare() -> Awaitable[object]:
            await visit.begin()
            return visit.go()

        assert await swept(prepare, visit.check) >= 2
