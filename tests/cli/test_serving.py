"""A server from its first line to its exit code: what it says, and what is left when it stops."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from minisession.cli.serving import is_browser_welcome, url_of
from tests.certificates import Certificate, issue
from tests.command import COMMAND, GRACE, environment, finished, running

VISITS = """
from minisession import session

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("this application has no lifespan")
    visits = await session.update("visits", lambda n: n + 1, default=0)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(visits).encode()})
"""

PLAIN = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    else:
        has_session = str("session" in scope).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": has_session})
"""

STORE = ("--store", "sqlite:///visits.db")
ANY_PORT = ("--port", "0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "visits.py").write_text(VISITS)
    (tmp_path / "plain.py").write_text(PLAIN)
    return tmp_path


def test_a_session_outlives_the_server(folder: Path, anyio_backend: str) -> None:
    command = ("serve", "visits:app", *STORE, *ANY_PORT, "--backend", anyio_backend)
    with httpx.Client() as browser:
        with running(folder, *command) as server:
            before = [browser.get(server.url).text for _ in range(2)]
            code = server.stop()
        with running(folder, *command) as server:
            after = browser.get(server.url).text

    assert (before, code, after) == (["1", "2"], 0, "3")


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_in_good_order(
    folder: Path, anyio_backend: str, with_signal: int
) -> None:
    command = ("serve", "plain:app", *ANY_PORT, "--backend", anyio_backend)
    with running(folder, *command) as server:
        code = server.stop(with_signal)

    assert code == 0
    assert "Traceback" not in (folder / "stderr.txt").read_text()


def test_without_a_store_the_application_is_left_alone(folder: Path) -> None:
    with running(folder, "serve", "plain:app", *ANY_PORT) as server:
        assert httpx.get(server.url).text == "False"


def test_the_store_and_the_configuration_can_come_from_the_environment(folder: Path) -> None:
    variables = {"MINISESSION_STORE": "memory://", "MINISESSION_NAME": "shop"}
    with running(folder, "serve", "visits:app", *ANY_PORT, **variables) as server:
        assert list(httpx.get(server.url).cookies) == ["shop"]


def test_an_address_in_use_is_said_and_exits_with_1(folder: Path, anyio_backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        run = finished(folder, "serve", "plain:app", "--port", port, "--backend", anyio_backend)

    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == (
        f"minisession serve: cannot listen on 127.0.0.1 port {port}: Address already in use."
        " Stop what listens there, or choose another port: --port 0 takes a free one\n"
    )


def test_over_tls_the_cookie_is_for_this_host_alone(folder: Path, certificate: Certificate) -> None:
    files = ("--certfile", certificate.certfile, "--keyfile", certificate.keyfile)
    with running(folder, "serve", "visits:app", *STORE, *ANY_PORT, *files) as server:
        response = httpx.get(server.url, verify=certificate.client())

    assert server.url.startswith("https://127.0.0.1:")
    assert response.headers["set-cookie"].startswith("__Host-MINISESSID=")


@pytest.mark.parametrize(
    ("allowed", "name"),
    [((), "MINISESSID"), (("--forwarded-allow-ips", "127.0.0.1"), "__Host-MINISESSID")],
)
def test_behind_a_proxy_that_ends_tls_the_cookie_is_for_this_host_alone_if_it_is_trusted(
    folder: Path, allowed: tuple[str, ...], name: str
) -> None:
    with running(folder, "serve", "visits:app", *STORE, *ANY_PORT, *allowed) as server:
        response = httpx.get(server.url, headers={"x-forwarded-proto": "https"})

    assert response.headers["set-cookie"].startswith(f"{name}=")


def test_over_a_unix_socket_its_path_is_said(folder: Path) -> None:
    with running(folder, "serve", "plain:app", "--uds", "shop.sock") as server:
        transport = httpx.HTTPTransport(uds=str(folder / "shop.sock"))
        with httpx.Client(transport=transport) as client:
            assert client.get("http://shop/").text == "False"

        assert server.url == "unix:shop.sock"


def test_each_record_of_the_log_can_be_a_json_object(folder: Path) -> None:
    options = (*ANY_PORT, "--access-log", "--log-format", "json")
    with running(folder, "serve", "plain:app", *options) as server:
        httpx.get(server.url + "/shoes?token=secret", headers={"cookie": "a=secret"})

    records = [json.loads(line) for line in (folder / "stderr.txt").read_text().splitlines()]
    visits = [record for record in records if record["logger"] == "minisession.server.access"]
    assert [(each["method"], each["path"], each["status"]) for each in visits] == [
        ("GET", "/shoes", 200)
    ]
    assert "secret" not in (folder / "stderr.txt").read_text()


def bad_key(folder: Path, certificate: Certificate) -> tuple[str, str]:
    other = folder / "other"
    other.mkdir()
    return certificate.certfile, issue(other).keyfile


def no_file(folder: Path, certificate: Certificate) -> tuple[str, str]:
    return certificate.certfile, "nowhere.pem"


def no_pem(folder: Path, certificate: Certificate) -> tuple[str, str]:
    (folder / "empty.pem").touch()
    return "empty.pem", certificate.keyfile


def encrypted_key(folder: Path, certificate: Certificate) -> tuple[str, str]:
    plain = load_pem_private_key(Path(certificate.keyfile).read_bytes(), None)
    (folder / "locked.pem").write_bytes(
        plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"sesame"))
    )
    return certificate.certfile, "locked.pem"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (bad_key, "this private key does not belong to the certificate in "),
        (no_file, "nowhere.pem: No such file or directory"),
        (no_pem, "needed are a certificate and its private key, in PEM"),
        (encrypted_key, "openssl pkey -in locked.pem -out plain.pem"),
    ],
)
def test_files_that_tls_cannot_use_are_said_without_a_question_and_exit_with_1(
    folder: Path, certificate: Certificate, files: Any, said: str
) -> None:
    certfile, keyfile = files(folder, certificate)
    run = finished(
        folder, "serve", "plain:app", *ANY_PORT, "--certfile", certfile, "--keyfile", keyfile
    )

    assert (run.returncode, run.stdout) == (1, "")
    assert said in run.stderr
    assert "Traceback" not in run.stderr
    assert "pass phrase" not in run.stderr


def test_a_unix_socket_that_cannot_be_bound_is_said_and_exits_with_1(folder: Path) -> None:
    runs = [
        finished(folder, "serve", "plain:app", "--uds", path) for path in ("plain.py", "x" * 200)
    ]

    assert [run.returncode for run in runs] == [1, 1]
    assert "cannot listen on unix:plain.py: Address already in use. Stop what" in runs[0].stderr
    assert "AF_UNIX path too long. Choose a short path" in runs[1].stderr


def test_a_host_that_nobody_knows_is_said_and_exits_with_1(
    folder: Path, anyio_backend: str
) -> None:
    run = finished(
        folder, "serve", "plain:app", "--host", "nobody.invalid", "--backend", anyio_backend
    )

    assert (run.returncode, run.stdout) == (1, "")
    assert "cannot listen on nobody.invalid port 8000: " in run.stderr
    assert "Traceback" not in run.stderr


def test_a_store_that_cannot_be_opened_is_said_and_exits_with_1(folder: Path) -> None:
    run = finished(
        folder, "serve", "plain:app", *ANY_PORT, "--store", "sqlite:///no/such/folder/x.db"
    )

    assert run.returncode == 1
    assert "no/such/folder exists" in run.stderr.splitlines()[-1]


def test_the_demo_says_where_it_keeps_the_sessions(folder: Path, anyio_backend: str) -> None:
    with running(folder, "demo", *ANY_PORT, "--backend", anyio_backend) as server:
        page = httpx.get(server.url).text
        code = server.stop()
        said = server.lines()

    assert code == 0
    assert said == [
        f"Sessions are kept in {folder.resolve()}/minisession-demo.db; remove it to begin anew.",
        "Stop with Ctrl-C.",
    ]
    assert f", {anyio_backend}</dd>" in page


def test_the_demo_says_of_another_store_only_its_kind(folder: Path) -> None:
    with running(folder, "demo", *ANY_PORT, "--store", "memory://") as server:
        server.stop()

        assert server.lines()[0] == "Sessions are kept in a store of the kind memory."


def test_the_demo_shows_that_a_session_is_older_than_the_server(folder: Path) -> None:
    with httpx.Client(follow_redirects=True) as browser:
        with running(folder, "demo", *ANY_PORT) as server:
            first = browser.post(f"{server.url}/count").text
            server.stop()
        with running(folder, "demo", *ANY_PORT) as server:
            second = browser.get(server.url).text

    survived = "before the server: it survived a restart"
    assert (survived in first, survived in second) == (False, True)


@contextmanager
def demo_on_a_terminal(folder: Path, *options: str) -> Iterator[tuple[int, int]]:
    """Start the demo where somebody could sit; yield what the terminal and a browser are told."""
    (folder / "browser").write_text(f'#!/bin/sh\necho "$1" > "{folder}/opened"\n')
    (folder / "browser").chmod(0o700)
    os.mkfifo(folder / "opened")
    opened = os.open(folder / "opened", os.O_RDWR)
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "demo", *ANY_PORT, *options],
        cwd=folder,
        env=environment(BROWSER=f"{folder}/browser %s", DISPLAY=":0", CI=""),
        stdin=inner,
        stdout=inner,
    )
    with process:
        try:
            yield outer, opened
        finally:
            process.terminate()
    for descriptor in (outer, inner, opened):
        os.close(descriptor)


def read_within(descriptor: int, seconds: float) -> str:
    """Return what comes, or "" if nothing does."""
    ready, _, _ = select.select([descriptor], [], [], seconds)
    return os.read(descriptor, 1000).decode() if ready else ""


def test_the_demo_opens_the_browser_of_somebody_who_sits_there(folder: Path) -> None:
    with demo_on_a_terminal(folder, "--host", "0.0.0.0") as (_, opened):
        url = read_within(opened, GRACE).strip()
        page = httpx.get(url).text

    assert url.startswith("http://127.0.0.1:")
    assert "minisession at work" in page


def test_the_demo_opens_no_browser_when_it_is_told_not_to(folder: Path) -> None:
    with demo_on_a_terminal(folder, "--no-browser") as (terminal, opened):
        assert "Listening on http://127.0.0.1:" in read_within(terminal, GRACE)
        assert read_within(opened, 0.5) == ""  # seconds; a browser is told at once


@pytest.mark.parametrize(
    ("variables", "is_terminal", "is_welcome"),
    [
        ({"DISPLAY": ":0"}, True, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True, True),
        ({"DISPLAY": ":0"}, False, False),
        ({"DISPLAY": ":0", "CI": "true"}, True, False),
    ],
)
def test_a_browser_is_opened_only_where_somebody_sees_it(
    variables: dict[str, str], is_terminal: bool, is_welcome: bool
) -> None:
    assert is_browser_welcome(variables, is_terminal=is_terminal) is is_welcome


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (("127.0.0.1", 8000), "http://127.0.0.1:8000"),
        (("::1", 8000), "http://[::1]:8000"),
        (("/run/shop.sock", None), "unix:/run/shop.sock"),
    ],
)
def test_an_address_becomes_a_url(address: tuple[str, int], url: str) -> None:
    assert url_of(address) == url


def test_ctrl_c_before_there_is_anything_to_stop_is_no_traceback(folder: Path) -> None:
    (folder / "early.py").write_text("""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.raise_signal(signal.SIGINT)
""")

    run = finished(folder, "serve", "early:app", *ANY_PORT)

    assert (run.returncode, run.stdout, run.stderr) == (130, "", "")
