"""The commands that run a server: `serve` and `demo`.

Owns what a user sees of a server's life: where it listens, why it cannot. What is served comes
from elsewhere.
"""

from __future__ import annotations

import argparse
import errno
import importlib.util
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio

from minisession.asgi import SessionMiddleware
from minisession.config import SessionConfig
from minisession.demo import create_app

from .apps import ASGIApp, load_app
from .logs import log_to_stderr
from .options import server_fields
from .supervisor import Supervisor, WorkerFailed

if TYPE_CHECKING:
    from minisession.server import ServerConfig

Address = tuple[str, int | None]  # host and port, or the path of a Unix socket and None
Announce = Callable[[Sequence[Address]], None]

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # names, nothing is bound here

_ADVICE = {
    errno.EADDRINUSE: "Stop what listens there, or choose another port: --port 0 takes a free one",
    errno.EACCES: "Ports below 1024 belong to root: --port 8000",
    errno.EADDRNOTAVAIL: "This machine does not have that address: --host 127.0.0.1",
}


class WrongOption(Exception):
    """An option or an environment variable is not allowed; the message says what is."""


class CannotServe(Exception):
    """The server cannot start; the message says why and what to do."""


def serve(options: argparse.Namespace) -> None:
    """Serve an application until a signal stops it.

    Raises:
        AppNotFound: there is no such application.
        WrongOption: an option or an environment variable is not allowed.
        CannotServe: the server cannot start.
    """

    def create() -> ASGIApp:
        app = load_app(options.app)
        _log(options)
        if options.store is None:
            return app
        with _refusing_what_is_wrong():
            return SessionMiddleware(app, options.store, SessionConfig.from_env())

    _run(create, options, partial(_announce, is_secure=bool(options.certfile)))


def demo(options: argparse.Namespace) -> None:
    """Serve the demo until a signal stops it.

    Raises:
        WrongOption: an option is not allowed.
        CannotServe: the server cannot start.
    """
    is_secure = bool(options.certfile)

    def create() -> ASGIApp:
        _log(options)
        with _refusing_what_is_wrong():
            return create_app(options.store, options.backend)

    def on_start(addresses: Sequence[Address]) -> None:
        _announce(addresses, is_secure=is_secure)
        _say(_where(options.store))
        _say("Stop with Ctrl-C.")
        is_welcome = is_browser_welcome(os.environ, is_terminal=_is_on_terminal())
        if is_welcome and not (options.no_browser or options.uds):
            _open_browser(url_of(_reachable(addresses[0]), is_secure=is_secure))

    _run(create, options, on_start)


def url_of(address: Address, *, is_secure: bool = False) -> str:
    """Return an address as the beginning of a URL; IPv6 goes in brackets (RFC 3986, 3.2.2).

    A Unix socket has none: "unix:" and its path, as in nginx's `proxy_pass`.
    """
    host, port = address
    if port is None:
        return f"unix:{host}"
    scheme = "https" if is_secure else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _reachable(address: Address) -> Address:
    host, port = address
    return _WILDCARDS.get(host, host), port


def _run(create: Callable[[], ASGIApp], options: argparse.Namespace, announce: Announce) -> None:
    """Serve what `create` makes: in this process, or in several workers, of which this may be one.

    `announce` is called once, by whoever the user has started.
    """
    _require_server(options.backend)
    # Imported late because it needs h11: the rest of the command line does without.
    from minisession.server import ServerConfig  # noqa: PLC0415

    with _refusing_what_is_wrong():
        config = ServerConfig(**server_fields(options))
    if options.worker:
        with socket.socket(fileno=options.worker[0]) as channel:
            channel.set_inheritable(False)
            stop_after = partial(anyio.wait_readable, channel)  # the supervisor says nothing more
            _serve(create(), config, options, partial(_tell, channel), stop_after)
    elif options.workers > 1:
        _supervise(config, options, announce)
    else:
        _serve(create(), config, options, announce, None)


def _tell(channel: socket.socket, _: Sequence[Address]) -> None:
    with suppress(ConnectionError):  # a supervisor that is no more is noticed by `stop_after`
        channel.send(b"1")


def _serve(
    app: ASGIApp,
    config: ServerConfig,
    options: argparse.Namespace,
    announce: Announce,
    stop_after: Callable[[], Awaitable[object]] | None,
) -> None:
    from minisession.server import CertificateRefused, LifespanFailed, run  # noqa: PLC0415

    try:
        run(app, config, options.backend, on_start=announce, stop_after=stop_after)
    except (CertificateRefused, LifespanFailed) as error:
        raise CannotServe(str(error)) from None
    except OSError as error:
        raise CannotServe(_cannot_listen(error, config)) from None


def _supervise(config: ServerConfig, options: argparse.Namespace, announce: Announce) -> None:
    from minisession.server import Listeners  # noqa: PLC0415

    _refuse_memory(options.store)
    _log(options)
    command = [sys.executable, "-m", "minisession", *options.words]
    # A worker has this time for its requests, then for the application's shutdown.
    patience = 2 * config.graceful_timeout + 5.0
    with Listeners(config) as listeners:
        try:
            listeners.open()
        except OSError as error:
            raise CannotServe(_cannot_listen(error, config)) from None
        addresses = listeners.addresses
        descriptors = [each.fileno() for each in listeners.sockets]
        supervisor = Supervisor(command, descriptors, options.workers, patience)
        try:
            supervisor.run(on_start=lambda: announce(addresses), on_stop=listeners.close)
        except WorkerFailed as error:
            raise CannotServe(str(error)) from None


def _refuse_memory(store: str | None) -> None:
    if store is not None and store.startswith("memory:"):
        raise WrongOption(
            "--store memory:// lives in one process, and each worker would have sessions of its"
            " own. Use --workers 1, or a store that they share: --store sqlite:///sessions.db"
        )


@contextmanager
def _refusing_what_is_wrong() -> Iterator[None]:
    """Tell apart what came from the command line; a ConfigError of the application's stays one."""
    try:
        yield
    except ValueError as error:  # a ConfigError is one
        raise WrongOption(str(error).removeprefix("ServerConfig.")) from None


def _cannot_listen(error: OSError, config: ServerConfig) -> str:
    number = error.errno or 0
    # asyncio's text repeats the address; the system's is plain. Resolvers have numbers below 0.
    reason = os.strerror(number) if number > 0 else error.strerror or str(error)
    if config.uds:
        return f"cannot listen on unix:{config.uds}: {reason}. {_advice_for_uds(number)}"
    advice = _ADVICE.get(number, "Choose another address: --host 127.0.0.1 --port 0")
    return f"cannot listen on {config.host} port {config.port}: {reason}. {advice}"


def _advice_for_uds(number: int) -> str:
    if number == errno.EADDRINUSE:
        return "Stop what listens there; a file that is no socket is left alone"
    return "Choose a short path in a folder that you may write to: --uds /tmp/shop.sock"


def _require_server(backend: str) -> None:
    needed = ["h11", "trio"] if backend == "trio" else ["h11"]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise CannotServe(
            f"the server needs {' and '.join(missing)}, which is not installed here:"
            ' pip install "minisession[server]"'
        )


def _log(options: argparse.Namespace) -> None:
    log_to_stderr(options.log_format, with_process=options.workers > 1)


def _announce(addresses: Sequence[Address], *, is_secure: bool) -> None:
    """Say where the server listens: one line, each address a word, such as http://localhost:80."""
    _say("Listening on " + " ".join(url_of(each, is_secure=is_secure) for each in addresses))


def _where(store: str) -> str:
    scheme, _, path = store.partition(":///")
    if scheme == "sqlite":
        return f"Sessions are kept in {os.path.abspath(path)}; remove it to begin anew."
    return f"Sessions are kept in a store of the kind {store.partition('://')[0]}."


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def is_browser_welcome(environ: Mapping[str, str], *, is_terminal: bool) -> bool:
    """Whether somebody sits there, with a screen: on a terminal without one, and in CI, none is.

    Where there is no screen, `webbrowser` would take over the terminal with a text browser.
    """
    has_screen = sys.platform == "darwin" or any(map(environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    return is_terminal and has_screen and not environ.get("CI")


def _is_on_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _open_browser(url: str) -> None:
    # In a thread of its own because starting a browser can take seconds; a daemon, because the
    # server does not wait for it in the end.
    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
