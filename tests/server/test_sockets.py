"""Where a server can be reached: by TCP in both families, in the file system, or inherited."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import anyio
import pytest

from minisession.server import sockets
from minisession.server.config import ServerConfig
from minisession.server.main import serve
from minisession.server.sockets import Listeners
from tests.server.kit import Client, answer, echo, get, http_app, reply, request


@http_app
async def tell_addresses(scope: Any, receive: Any, send: Any) -> None:
    await reply(send, repr((scope["client"], scope["server"])).encode())


async def body_over(client: Client, path: str = "/x") -> bytes:
    async with client:
        await client.send(get(path, "Connection: close"))
        return (await client.read_all()).partition(b"\r\n\r\n")[2]


@pytest.mark.anyio
async def test_over_a_unix_socket_the_client_has_no_address(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    async with anyio.create_task_group() as tasks:
        addresses = await tasks.start(serve, tell_addresses, ServerConfig(uds=path))
        body = await body_over(Client(await anyio.connect_unix(path)))
        tasks.cancel_scope.cancel()

    assert addresses == [(path, None)]
    assert body == repr((None, (path, None))).encode()
    assert not await anyio.Path(path).exists()


@pytest.mark.anyio
async def test_inherited_sockets_are_used_and_closed_in_the_end() -> None:
    inherited = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    bound = [each.getsockname() for each in inherited]
    config = ServerConfig(fds=tuple(each.detach() for each in inherited))
    async with anyio.create_task_group() as tasks:
        addresses = await tasks.start(serve, echo, config)
        bodies = [await body_over(Client(await anyio.connect_tcp(*each))) for each in bound]
        tasks.cancel_scope.cancel()

    assert addresses == bound
    assert bodies == [b"/x ", b"/x "]
    for address in bound:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)


@pytest.mark.anyio
@pytest.mark.needs("IPv6")
async def test_localhost_is_reached_by_both_families_at_the_same_port() -> None:
    both = {each[4][0] for each in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    async with anyio.create_task_group() as tasks:
        addresses = await tasks.start(serve, echo, ServerConfig(host="localhost", port=0))
        bodies = [await body_over(Client(await anyio.connect_tcp(*each))) for each in addresses]
        tasks.cancel_scope.cancel()

    assert {host for host, _ in addresses} <= both
    assert len({port for _, port in addresses}) == 1
    assert bodies == [b"/x "] * len(addresses)


@pytest.mark.anyio
@pytest.mark.needs("IPv6")
async def test_an_ipv6_address_has_a_host_and_a_port_and_nothing_else() -> None:
    async with anyio.create_task_group() as tasks:
        addresses = await tasks.start(serve, tell_addresses, ServerConfig(host="::1", port=0))
        body = await body_over(Client(await anyio.connect_tcp(*addresses[0])))
        tasks.cancel_scope.cancel()

    assert body.endswith(repr(("::1", addresses[0][1])).encode() + b")")


# --- proxies --------------------------------------------------------------------------------------


@http_app
async def tell_origin(scope: Any, receive: Any, send: Any) -> None:
    await reply(send, repr((scope["scheme"], scope["client"] and scope["client"][0])).encode())


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("allowed", "told"),
    [
        ("", ("http", "127.0.0.1")),
        ("10.0.0.1", ("http", "127.0.0.1")),
        ("127.0.0.0/8", ("https", "192.0.2.1")),
        ("*", ("https", "192.0.2.1")),
    ],
)
async def test_a_proxy_is_believed_only_if_it_is_named(allowed: str, told: object) -> None:
    config = ServerConfig(port=0, forwarded_allow_ips=allowed)
    headers = ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https")
    async with anyio.create_task_group() as tasks:
        addresses = await tasks.start(serve, tell_origin, config)
        async with Client(await anyio.connect_tcp(*addresses[0])) as client:
            await client.send(get("/", *headers))
            expected = answer(repr(told).encode())

            assert await client.read(len(expected)) == expected
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_what_a_trusted_proxy_says_and_cannot_be_read_is_answered_with_400() -> None:
    config = ServerConfig(port=0, forwarded_allow_ips="*")
    async with anyio.create_task_group() as tasks:
        addresses = await tasks.start(serve, tell_origin, config)
        async with Client(await anyio.connect_tcp(*addresses[0])) as client:
            await client.send(
                request("POST", "/", "X-Forwarded-Proto: gopher", "Content-Length: 0")
            )

            assert (await client.read_all()).startswith(b"HTTP/1.1 400 ")
        tasks.cancel_scope.cancel()


# --- binding --------------------------------------------------------------------------------------


def left_behind(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example"])
def test_a_name_that_cannot_be_one_is_not_known(host: str) -> None:
    with pytest.raises(OSError, match="not known"), Listeners(ServerConfig(host=host)) as found:
        found.open()


def test_a_unix_socket_that_nobody_listens_on_makes_way(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    left_behind(path)

    with Listeners(ServerConfig(uds=path)) as listeners:
        listeners.open()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)

    assert not os.path.exists(path)


def test_a_unix_socket_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    config = ServerConfig(uds=str(tmp_path / "s.sock"))
    with Listeners(config) as first:
        first.open()
        with pytest.raises(OSError, match="in use"), Listeners(config) as second:
            second.open()

        with socket.socket(socket.AF_UNIX) as client:
            client.connect(config.uds)


def test_a_file_of_somebodys_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "diary"
    path.write_text("dear diary")

    with pytest.raises(OSError, match="in use"), Listeners(ServerConfig(uds=str(path))) as found:
        found.open()

    assert path.read_text() == "dear diary"


def test_a_socket_that_another_server_has_put_there_meanwhile_stays(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    with Listeners(ServerConfig(uds=path)) as listeners:
        listeners.open()
        os.rename(path, path + ".old")
        left_behind(path)

    assert os.path.exists(path)


def test_whoever_may_enter_the_folder_may_connect(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    before = os.umask(0o077)
    try:
        with Listeners(ServerConfig(uds=path)) as listeners:
            listeners.open()

            assert os.stat(path).st_mode & 0o777 == 0o666
    finally:
        os.umask(before)


def test_a_descriptor_that_does_not_listen_is_refused_and_left_alone() -> None:
    with socket.socket() as idle:
        with pytest.raises(OSError, match="is no listening socket"):
            Listeners(ServerConfig(fds=(idle.fileno(),))).open()

        assert idle.getsockname()


def test_a_host_of_which_one_address_is_taken_is_not_bound_in_part() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with Listeners(ServerConfig(host="localhost", port=port)) as found:
            with pytest.raises(OSError, match="in use"):
                found.open()

            assert found.sockets == []


def resolve_to_both(host: str, port: int, **hints: Any) -> list[Any]:
    """What the name "localhost" means on many machines."""
    tcp = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    return [
        (socket.AF_INET6, *tcp, ("::1", port, 0, 0)),
        (socket.AF_INET, *tcp, ("127.0.0.1", port)),
    ]


class Collisions:
    """Somebody who takes the port that a server was given away from it in the other family.

    Mutable: `given`, the ports so far, and what was taken of them.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.times = times
        self.given: list[int] = []
        self.taken: list[socket.socket] = []
        self.bind = sockets._bound
        monkeypatch.setattr(socket, "getaddrinfo", resolve_to_both)
        monkeypatch.setattr(sockets, "_bound", self.bound)

    def bound(self, family: int, address: tuple[Any, ...], backlog: int) -> socket.socket:
        if address[1] != 0 and len(self.given) <= self.times:
            self.taken.append(self.bind(family, address, backlog))
        bound = self.bind(family, address, backlog)
        if address[1] == 0:
            self.given.append(bound.getsockname()[1])
        return bound

    def __enter__(self) -> Collisions:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for each in self.taken:
            each.close()


@pytest.mark.needs("IPv6")
@pytest.mark.parametrize("collisions", [0, 1, 3])
def test_a_port_that_is_taken_in_the_other_family_is_not_chosen(
    collisions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ServerConfig(host="localhost", port=0)
    with Collisions(monkeypatch, collisions) as others, Listeners(config) as found:
        found.open()

        port = others.given[-1]
        assert found.addresses == [("::1", port), ("127.0.0.1", port)]
        assert len(others.given) == collisions + 1


@pytest.mark.needs("IPv6")
def test_the_search_for_a_port_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ServerConfig(host="localhost", port=0)
    with Collisions(monkeypatch, 1000) as others, Listeners(config) as found:
        with pytest.raises(OSError, match="in use"):
            found.open()

        assert found.sockets == []
        assert len(others.given) == 16
