"""An ASGI 3 server for HTTP/1.1 on h11, for asyncio and trio. It has never heard of sessions.

    from minisession.server import ServerConfig, run

    run(app, ServerConfig(port=8000), backend="trio")

From the bytes upwards; each file imports only those above it:

    errors      whose fault it is
    blame       what an app has raised, and whose business that is
    forwarded   what proxies say, and who is believed
    config      ServerConfig
    sockets     where the server can be reached
    head        strict checks of a request's head, before h11 sees it
    target      the request target taken apart
    chunked     the chunked coding, strictly
    requests    bytes -> requests and pieces of bodies            (no I/O, no clock)
    fields      a response's status line and fields -> bytes      (no I/O, no clock)
    cycle       one request and response as ASGI messages; table  (no I/O, no clock)
    date        the Date header, once a second
    scope       the ASGI scope
    transport   a socket
    on_asyncio  what is done differently there: a cheaper transport, stray cancellations
    tls         a transport around another one, encrypted
    connection  a socket with deadlines, a reader and what is left to write
    service     what all connections share
    steps       a coroutine in a context of its own, without a task of its own
    access_log  one record for each response
    exchange    runs the app on one request
    relay       what happens on a connection, and in whose task
    lifespan    the app's startup and shutdown
    listener    accepts, and sees that deadlines are kept
    main        serve, run
"""

from .config import ServerConfig
from .errors import CertificateRefused, LifespanFailed
from .main import run, serve
from .sockets import Listeners

__all__ = ["CertificateRefused", "LifespanFailed", "Listeners", "ServerConfig", "run", "serve"]
