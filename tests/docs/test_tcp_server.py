"""The example of the how-to "Embed it in an anyio server", run as a reader would run it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream

from docs.examples import tcp_server

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running_server() -> AsyncIterator[int]:
    """Serve on a free port of this machine, and yield the port."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(tcp_server.serve, listener)
        yield listener.extra(SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


async def talk(port: int, *lines: str) -> list[tuple[str, str]]:
    """Send lines on one connection, each after the answer to the one before.

    A line that begins with "=" continues with the id of the answer before. Returns the answers,
    each as id and text.
    """
    answers = [("-", "")]
    async with await anyio.connect_tcp("127.0.0.1", port) as server:
        received = BufferedByteReceiveStream(server)
        for line in lines:
            await server.send(line.replace("=", answers[-1][0], 1).encode() + b"\n")
            id, _, text = (await received.receive_until(b"\n", 1000)).decode().partition(" ")
            answers.append((id, text))
    return answers[1:]


async def test_a_session_lasts_over_lines_and_connections() -> None:
    async with running_server() as port:
        (_, first), (id, second) = await talk(port, "- add milk", "= add bread")
        [(_, later)] = await talk(port, f"{id} show")

    assert (first, second, later) == ("milk", "milk bread", "milk bread")


async def test_two_clients_have_two_lists() -> None:
    async with running_server() as port:
        [(one, _)] = await talk(port, "- add milk")
        [(two, _)] = await talk(port, "- add bread")
        [(_, list_of_one)] = await talk(port, f"{one} show")
        [(_, list_of_two)] = await talk(port, f"{two} show")

    assert (list_of_one, list_of_two) == ("milk", "bread")


async def test_looking_starts_no_session() -> None:
    async with running_server() as port:
        [(id, text)] = await talk(port, "- show")

    assert (id, text) == ("-", "nothing")


async def test_a_login_replaces_the_id_and_keeps_the_list() -> None:
    async with running_server() as port:
        (before, _), (after, text) = await talk(port, "- add milk", "= login Ada")
        [(_, by_old_id)] = await talk(port, f"{before} show")

    assert before != after
    assert text == "Ada: milk"
    assert "milk" not in by_old_id


async def test_a_logout_ends_the_session() -> None:
    async with running_server() as port:
        (id, _), (no_id, text) = await talk(port, "- add milk", "= logout")
        [(_, afterwards)] = await talk(port, f"{id} show")

    assert (no_id, text) == ("-", "nothing")
    assert afterwards == "nothing"


@pytest.mark.parametrize("id", ["made-up", "é", "x" * 90])
async def test_an_id_that_the_server_did_not_give_is_not_taken_over(id: str) -> None:
    async with running_server() as port:
        [(given, text)] = await talk(port, f"{id} add milk")

    assert text == "milk"
    assert given not in {id, "-"}


async def test_what_is_not_a_command_is_explained() -> None:
    async with running_server() as port:
        [(_, text)] = await talk(port, "- dance")

    assert text == "? add THING, login NAME, logout or show"
