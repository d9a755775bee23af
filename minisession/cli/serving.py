"""The commands that run a server: `serve` and `demo`.

Owns what a user sees of a server's life: where it listens, why it cannot. What is served comes
from elsewhere.
"""

from __future__ import annotations

import argparse
import errno
import importlib.util
import logging
import os
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from minisession.asgi import SessionMiddleware
from minisession.config import SessionConfig
from minisession.demo import create_app

from .apps import ASGIApp, load_app
from .options import server_fields

Address = tuple[str, int]

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
    _require_server(options.backend)
    app = load_app(options.app)
    _log_to_stderr()
    if options.store is not None:
        with _refusing_what_is_wrong():
            app = SessionMiddleware(app, options.store, SessionConfig.from_env())
    _run(app, options, _announce)


def demo(options: argparse.Namespace) -> None:
    """Serve the demo until a signal stops it.

    Raises:
        WrongOption: an option is not allowed.
        CannotServe: the server cannot start.
    """
    _require_server(options.backend)
    _log_to_stderr()
    with _refusing_what_is_wrong():
        app = create_app(options.store, options.backend)

    def on_start(addresses: Sequence[Address]) -> None:
        _announce(addresses)
        _say(_where(options.store))
        _say("Stop with Ctrl-C.")
        is_welcome = is_browser_welcome(os.environ, is_terminal=_is_on_terminal())
        if is_welcome and not options.no_browser:
            _open_browser(url_of(_reachable(addresses[0])))

    _run(app, options, on_start)


def url_of(address: Address) -> str:
    """Return an address as the beginning of a URL; IPv6 goes in brackets (RFC 3986, 3.2.2)."""
    host, port = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _reachable(address: Address) -> Address:
    host, port = address
    return _WILDCARDS.get(host, host), port


def _run(
    app: ASGIApp,
    options: argparse.Namespace,
    on_start: Callable[[Sequence[Address]], None],
) -> None:
    # Imported here because it needs h11: the rest of the command line does without.
    from minisession.server import LifespanFailed, ServerConfig, run  # noqa: PLC0415

    with _refusing_what_is_wrong():
        config = ServerConfig(**server_fields(options))
    try:
        run(app, config, options.backend, on_start=on_start)
    except LifespanFailed as error:
        raise CannotServe(str(error)) from None
    except OSError as error:
        raise CannotServe(_cannot_listen(error, config.host, config.port)) from None


@contextmanager
def _refusing_what_is_wrong() -> Iterator[None]:
    """Tell apart what came from the command line; a ConfigError of the application's stays one."""
    try:
        yield
    except ValueError as error:  # a ConfigError is one
        raise WrongOption(str(error).removeprefix("ServerConfig.")) from None


def _cannot_listen(error: OSError, host: str, port: int) -> str:
    number = error.errno or 0
    advice = _ADVICE.get(number, "Choose another address: --host 127.0.0.1 --port 0")
    # asyncio's text repeats the address; the system's is plain. Resolvers have numbers below 0.
    reason = os.strerror(number) if number > 0 else error.strerror
    return f"cannot listen on {host} port {port}: {reason}. {advice}"


def _require_server(backend: str) -> None:
    needed = ["h11", "trio"] if backend == "trio" else ["h11"]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise CannotServe(
            f"the server needs {' and '.join(missing)}, which is not installed here:"
            ' pip install "minisession[server]"'
        )


def _log_to_stderr() -> None:
    """Show warnings, and what this package says, unless the application has set up its own."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("minisession").setLevel(logging.INFO)


def _announce(addresses: Sequence[Address]) -> None:
    """Say where the server listens: one line, each address a word that begins with http://."""
    _say("Listening on " + " ".join(map(url_of, addresses)))


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
