"""The `session` of the current request: who sees which, and that it is in all things a Session."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, MutableMapping
from contextvars import Context, copy_context
from random import Random
from threading import Thread
from typing import Any
from unittest import mock

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

import minisession
from minisession import (
    NoActiveSession,
    Session,
    SessionClosed,
    SessionManager,
    UnstorableValue,
    current,
    session,
)
from minisession._context import bound

pytestmark = pytest.mark.anyio

INTERFACE = sorted(name for name in dir(Session) if not name.startswith("_"))


@pytest.fixture
def sessions() -> SessionManager:
    return SessionManager("memory://")


@pytest.fixture
def real(sessions: SessionManager) -> Session:
    """A session that tests bind by hand."""
    return Session(sessions.ledger())


# --- it is in all things a Session ---------------------------------------------------------------


def test_every_public_name_of_a_session_is_there(real: Session) -> None:
    with bound(real):
        missing = [name for name in INTERFACE if not hasattr(session, name)]

    assert missing == []
    assert len(INTERFACE) > 20


FORWARDED = [
    name
    for name in INTERFACE
    if inspect.isfunction(getattr(Session, name)) and name != "get"  # that is written out
]


@pytest.mark.parametrize("name", FORWARDED)
def test_a_method_is_that_of_the_bound_session(real: Session, name: str) -> None:
    with bound(real):
        method = getattr(session, name)

    assert method.__self__ is real
    assert method.__func__ is getattr(Session, name)


def test_reads_and_writes_reach_the_bound_session(real: Session) -> None:
    with bound(real):
        session["a"] = 1
        session.set("b", [2])
        session["b"].append(3)
        session.principal = "user:7"

        assert session["a"] == session.get("a") == 1
        assert session.get("x") is None
        assert session.get("x", 5) == session.get("x", default=5) == 5
        assert "a" in session
        assert "x" not in session
        assert len(session) == 2
        assert list(session) == ["a", "b"]
        assert (session.id, session.handle) == (real.id, real.handle)
        del session["a"]

    assert dict(real) == {"b": [2, 3]}
    assert real.principal == "user:7"


def test_errors_are_those_of_the_session(real: Session) -> None:
    with bound(real):
        with pytest.raises(KeyError, match="missing"):
            session["missing"]
        with pytest.raises(UnstorableValue, match="write session\\['1'\\]"):
            session[1] = 1  # type: ignore[index]
        with pytest.raises(AttributeError, match="'Session' object has no attribute 'modified'"):
            session.modified = True  # type: ignore[attr-defined]
        with pytest.raises(AttributeError, match="'Session' object has no attribute 'missing'"):
            session.missing  # type: ignore[attr-defined]  # noqa: B018


def test_it_is_a_session_and_a_mapping_wherever_it_is_asked() -> None:
    assert isinstance(session, Session)
    assert isinstance(session, MutableMapping)
    assert isinstance(session, Mapping)
    assert not isinstance(session, dict)


def test_it_can_be_copied_unpacked_dumped_and_matched(real: Session) -> None:
    with bound(real):
        session.update(user="ada", n=1)

        assert dict(session) == {**session} == {"user": "ada", "n": 1}
        assert json.loads(json.dumps(dict(session))) == {"user": "ada", "n": 1}
        assert list(session.keys()) == ["user", "n"]
        match session:
            case {"user": user, **others}:
                assert (user, others) == ("ada", {"n": 1})
            case _:
                pytest.fail("not matched")


def test_it_equals_what_the_session_equals(real: Session) -> None:
    with bound(real):
        session["a"] = 1

        assert session == {"a": 1}
        assert {"a": 1} == session  # noqa: SIM300
        assert session == session
        assert session == real
        assert real == session
        assert session != {"a": 2}


def test_it_is_false_when_the_session_is_empty(real: Session) -> None:
    with bound(real):
        assert not session
        session["a"] = 1
        assert session


def test_what_a_session_refuses_it_refuses(real: Session) -> None:
    with bound(real):
        with pytest.raises(TypeError, match="unhashable"):
            hash(session)
        with pytest.raises(TypeError, match="not reversible"):
            reversed(session)  # type: ignore[call-overload]


def test_its_repr_is_that_of_the_session_or_says_that_there_is_none(real: Session) -> None:
    assert repr(session) == "<session: none is active here>"
    with bound(real):
        session["a"] = 1
        assert repr(session) == repr(real) == f"<Session live handle={real.handle} keys=1>"


def test_an_editor_can_complete_its_names() -> None:
    assert set(INTERFACE) <= set(dir(session))


# --- where no request is being handled -----------------------------------------------------------

USES: dict[str, Callable[[], Any]] = {
    "current": current,
    "get": lambda: session.get("a"),
    "item": lambda: session["a"],
    "set": lambda: session.set("a", 1),
    "set item": lambda: session.__setitem__("a", 1),
    "delete": lambda: session.__delitem__("a"),
    "in": lambda: "a" in session,
    "len": lambda: len(session),
    "iter": lambda: list(session),
    "==": lambda: session == {},
    "id": lambda: session.id,
    "principal": lambda: setattr(session, "principal", "ada"),
    "save": lambda: session.save,
    "update": lambda: session.update("n", lambda n: n),
    "destroy": lambda: session.destroy,
    "passive": lambda: session.passive,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_without_a_request_every_use_says_what_to_add(use: Callable[[], Any]) -> None:
    with pytest.raises(NoActiveSession) as caught:
        use()

    message = str(caught.value)
    assert 'SessionMiddleware(app, store="sqlite:///sessions.db")' in message
    assert "sessions.open(id)" in message
    assert "copy_context().run" in message


def test_tools_that_look_at_everything_in_a_module_meet_no_error_of_ours() -> None:
    for name in ("__wrapped__", "__func__", "_is_coroutine", "pytestmark", "__test__"):
        assert not hasattr(session, name)
    assert inspect.unwrap(session) is session  # type: ignore[arg-type]
    assert not inspect.iscoroutinefunction(session)
    with mock.patch.object(minisession, "session", {"user": "ada"}):
        assert minisession.session == {"user": "ada"}
    with mock.patch("minisession.session") as double:
        double.get.return_value = "ada"
        assert minisession.session.get("user") == "ada"
    assert minisession.session is session


# --- binding -------------------------------------------------------------------------------------


def test_binding_ends_with_the_block_and_the_outer_one_is_back(sessions: SessionManager) -> None:
    outer, inner = Session(sessions.ledger()), Session(sessions.ledger())
    with bound(outer):
        with bound(inner):
            assert current() is inner
        assert current() is outer

    with pytest.raises(NoActiveSession):
        current()


def test_binding_ends_with_an_exception_too(real: Session) -> None:
    with pytest.raises(ZeroDivisionError), bound(real):
        raise ZeroDivisionError

    with pytest.raises(NoActiveSession):
        current()


def test_a_block_left_in_another_context_leaves_that_contexts_session_alone(
    sessions: SessionManager,
) -> None:
    ours, theirs = Session(sessions.ledger()), Session(sessions.ledger())
    block = bound(ours)
    copy_context().run(block.__enter__)

    with bound(theirs):
        block.__exit__(None, None, None)

        assert current() is theirs


async def test_what_opens_a_session_binds_it_for_the_block(sessions: SessionManager) -> None:
    async with sessions.open() as opened:
        assert current() is opened
        session["a"] = 1
        assert opened["a"] == 1

    with pytest.raises(NoActiveSession):
        current()


async def test_opening_another_within_binds_that_one_for_its_block(
    sessions: SessionManager,
) -> None:
    async with sessions.open() as outer:
        session["who"] = "outer"
        async with sessions.open():
            session["who"] = "inner"
        assert session["who"] == "outer"
        assert current() is outer


# --- who inherits it -----------------------------------------------------------------------------


async def test_child_tasks_share_the_very_same_session(sessions: SessionManager) -> None:
    seen = []

    async def child(n: int) -> None:
        await checkpoint()
        session[f"child {n}"] = n
        seen.append(current())

    async with sessions.open() as ours:
        async with anyio.create_task_group() as tasks:
            for n in range(3):
                tasks.start_soon(child, n)

        assert session == {"child 0": 0, "child 1": 1, "child 2": 2}
    assert len(seen) == 3
    assert all(one is ours for one in seen)


async def test_worker_threads_share_the_very_same_session(sessions: SessionManager) -> None:
    def work() -> Session:
        session["thread"] = True
        return current()

    async with sessions.open() as ours:
        assert await anyio.to_thread.run_sync(work) is ours
        assert session["thread"] is True


async def test_a_task_called_back_from_a_thread_shares_it(sessions: SessionManager) -> None:
    async def back() -> Session:
        await checkpoint()
        return current()

    async with sessions.open() as ours:
        assert await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(back)) is ours


async def test_generators_see_it_of_whoever_runs_them(sessions: SessionManager) -> None:
    def names() -> Iterator[str]:
        while True:
            yield session["name"]

    generator = names()
    async with sessions.open():
        session["name"] = "first"
        assert next(generator) == "first"
    async with sessions.open():
        session["name"] = "second"
        assert next(generator) == "second"


async def test_asynchronous_generators_see_it(sessions: SessionManager) -> None:
    async def parts() -> AsyncIterator[str]:
        for n in range(3):
            await checkpoint()
            session["part"] = n
            yield f"{session['part']}"

    async with sessions.open():
        assert [part async for part in parts()] == ["0", "1", "2"]
        assert session["part"] == 2


async def test_a_thread_of_your_own_sees_none_and_sees_it_in_a_copied_context(
    sessions: SessionManager,
) -> None:
    answers: dict[str, object] = {}

    def work(name: str) -> None:
        try:
            answers[name] = current()
        except NoActiveSession as error:
            answers[name] = type(error)

    async with sessions.open() as ours:
        context = copy_context()
        plain = Thread(target=Context().run, args=(work, "plain"))
        carried = Thread(target=context.run, args=(work, "carried"))
        for thread in (plain, carried):
            thread.start()
            await anyio.to_thread.run_sync(thread.join)

        assert answers == {"plain": NoActiveSession, "carried": ours}
        assert answers["carried"] is ours


async def test_a_task_that_outlives_its_request_is_told_the_way_out(
    sessions: SessionManager,
) -> None:
    ended = anyio.Event()
    told: list[str] = []

    async def outlives() -> None:
        await ended.wait()
        with pytest.raises(SessionClosed) as caught:
            session.get("a")
        told.append(str(caught.value))

    async with anyio.create_task_group() as tasks:
        async with sessions.open():
            session["a"] = 1
            handle = session.handle
            tasks.start_soon(outlives)
        ended.set()

    assert f"open_handle('{handle}')" in told[0]


async def test_tasks_that_run_interleaved_each_see_their_own(sessions: SessionManager) -> None:
    order = Random(7)
    wrong: list[tuple[int, Any]] = []

    async def request(n: int) -> None:
        async with sessions.open():
            session["owner"] = n
            for step in range(order.randrange(1, 8)):
                await checkpoint()
                session[f"step {step}"] = n
                if session["owner"] != n or set(session.values()) != {n}:
                    wrong.append((n, session.all()))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(check, n)
            await check(n)

    async def check(n: int) -> None:
        await checkpoint()
        if session["owner"] != n:
            wrong.append((n, session["owner"]))

    async with anyio.create_task_group() as tasks:
        for n in range(100):
            tasks.start_soon(request, n)

    assert wrong == []
