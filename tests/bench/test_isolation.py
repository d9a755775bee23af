"""The benchmark itself, small: what it does with a sound package, and what it finds in others."""

from __future__ import annotations

import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import anyio
import pytest

from minisession import SessionClosed, SessionManager, SessionMiddleware, _context, session
from minisession.bench import Progress, measure
from minisession.bench.shop import shop
from minisession.bench.visitors import Crowd, Gate, Manner, Visitor
from minisession.stores.sqlite import SQLiteStore

pytestmark = pytest.mark.anyio

App = Callable[[Any, Any, Any], Awaitable[None]]

VISITORS = 40
PLAIN = Manner(
    has_children=False,
    uses_a_thread=False,
    streams=False,
    changes=True,
    logs_in=False,
    hangs_up_after=None,
    pauses=0b111110,
)


def nothing() -> None:
    """What happens when all are there."""


async def visited(app: App, *manners: Manner) -> Crowd:
    """Let visitors come to an application, all at once."""
    crowd = Crowd(app, Gate(len(manners), nothing))
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for number, manner in enumerate(manners):
                tasks.start_soon(Visitor(number, manner, crowd).visit)
    return crowd


async def visited_with_sessions(app: App, *manners: Manner) -> Crowd:
    async with SessionManager("memory://") as manager:
        return await visited(SessionMiddleware(app, manager), *manners)


@pytest.mark.parametrize("store", ["memory://", "sqlite:///{folder}/bench.db"])
def test_all_are_alive_at_once_and_everybody_sees_only_their_own(
    anyio_backend: str, store: str, tmp_path: Path
) -> None:
    report = measure(120, anyio_backend, store.format(folder=tmp_path), 1, Progress(StringIO()))

    assert report.findings.examples == []
    assert [(run.tasks, run.alive) for run in report.runs] == [(12, 12), (30, 30), (120, 120)]
    mixture = report.run.mixture
    assert min(mixture.with_children, mixture.with_threads, mixture.streams, mixture.logins) > 0
    assert len(report.run.latencies) + mixture.hung_up == report.run.requests
    assert report.findings.looks > 5 * 120


class PressesCtrlC(Progress):
    """Interrupts the process when the first crowd comes, and notes what still runs after that."""

    def __init__(self) -> None:
        super().__init__(StringIO())
        self.went_on = 0

    def begin(self, what: str, total: int) -> None:
        signal.raise_signal(signal.SIGINT)
        self.went_on += 1


def test_ctrl_c_cancels_all_but_breaks_into_nothing(anyio_backend: str) -> None:
    progress = PressesCtrlC()

    with pytest.raises(KeyboardInterrupt):
        measure(120, anyio_backend, "memory://", 1, progress)

    assert progress.went_on == 1


async def test_nothing_is_left_in_the_store(tmp_path: Path) -> None:
    rng = random.Random(1)
    url = f"sqlite:///{tmp_path}/bench.db"
    async with SessionManager(url) as manager:
        app = SessionMiddleware(shop, manager)
        await visited(app, *(Manner.drawn(rng) for _ in range(VISITORS)))

    async with SQLiteStore(tmp_path / "bench.db") as store:
        assert await store.scan(0.0) == []


@pytest.mark.parametrize("steps", range(1, 14))
async def test_whoever_hangs_up_finds_the_state_before_or_after(steps: int) -> None:
    crowd = await visited_with_sessions(shop, replace(PLAIN, hangs_up_after=steps))

    assert crowd.findings.examples == []
    assert crowd.hung_up == (crowd.done - len(crowd.latencies))


async def test_a_request_is_cut_off_midway_or_not_at_all_by_the_step_it_is_cancelled_at() -> None:
    manners = [replace(PLAIN, hangs_up_after=steps) for steps in range(1, 40)]

    crowd = await visited_with_sessions(shop, *manners)

    assert 0 < crowd.hung_up < len(manners)


def test_the_same_seed_draws_the_same_manners() -> None:
    first, second, other = (random.Random(seed) for seed in (1, 1, 2))

    drawn = [[Manner.drawn(rng) for _ in range(20)] for rng in (first, second, other)]

    assert drawn[0] == drawn[1] != drawn[2]


# --- what must be found ------------------------------------------------------------------------


async def forgets(scope: Any, receive: Any, send: Any) -> None:
    """Has lost a key when the visitor comes back."""
    if scope["path"] == "/leave":
        del session["right"]
    await shop(scope, receive, send)


async def mixes_up(scope: Any, receive: Any, send: Any) -> None:
    """Has the value of another visitor when the visitor comes back."""
    if scope["path"] == "/leave":
        session["right"] = "1000/pair/0"
    await shop(scope, receive, send)


async def does_half(scope: Any, receive: Any, send: Any) -> None:
    """Has one half of a change when the visitor comes back."""
    if scope["path"] == "/leave":
        session["right"] = scope["visitor"].tag("pair", 0)
    await shop(scope, receive, send)


@pytest.mark.parametrize(
    ("app", "found"), [(forgets, "lost"), (mixes_up, "cross_talk"), (does_half, "lost")]
)
async def test_a_session_that_is_not_as_it_was_written_is_found(app: App, found: str) -> None:
    crowd = await visited_with_sessions(app, *[PLAIN] * VISITORS)

    counts = {what: getattr(crowd.findings, what) for what in ("cross_talk", "lost", "failed")}
    assert counts == {"cross_talk": 0, "lost": 0, "failed": 0, found: VISITORS}


async def refuses(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 503, "headers": []})
    await send({"type": "http.response.body"})


async def breaks(scope: Any, receive: Any, send: Any) -> None:
    raise SessionClosed("over")


async def is_silent(scope: Any, receive: Any, send: Any) -> None:
    return


@pytest.mark.parametrize(
    ("app", "told"),
    [
        (refuses, "answered with 503"),
        (breaks, "SessionClosed('over')"),
        (is_silent, "answered with nothing"),
    ],
)
async def test_a_request_that_fails_is_counted_and_nobody_waits_for_it(app: App, told: str) -> None:
    async with SessionManager("memory://") as manager:
        with_sessions = SessionMiddleware(shop, manager)

        async def front(scope: Any, receive: Any, send: Any) -> None:
            fails = scope["visitor"].number % 2
            await (app if fails else with_sessions)(scope, receive, send)

        crowd = await visited(front, *[PLAIN] * VISITORS)

    assert crowd.findings.failed == VISITORS // 2
    assert crowd.gate.held == VISITORS // 2
    assert all(example.endswith(f" failed: {told}") for example in crowd.findings.examples)


async def test_a_session_that_stays_bound_after_its_request_is_found() -> None:
    async with SessionManager("memory://") as manager:
        inner = SessionMiddleware(shop, manager)

        async def front(scope: Any, receive: Any, send: Any) -> None:
            await inner(scope, receive, send)
            _context._bound.set(object())  # type: ignore[arg-type]

        crowd = await visited(front, *[PLAIN] * 3)

    assert crowd.findings.cross_talk == 3
    assert "was bound to visitor" in crowd.findings.examples[0]
