"""What can go wrong in the server, drawn as a tree that branches by whose fault it is.

    RequestRefused      the client's: answered with its status, then the connection closes
    ClientDisconnected  the client's: it is gone, and `send()` says so to the app (an OSError)
    AppProtocolError    the app's: a message that ASGI does not allow at that point
    LifespanFailed      the app's: it declared that it cannot start, or failed to stop
    CertificateRefused  the operator's: the files for TLS cannot be used

No message holds a header value or a body: they may be secrets.
"""

from __future__ import annotations


class RequestRefused(Exception):
    """The request is not acceptable HTTP; nothing more can be read on its connection.

    Attributes:
        status: the response's status code, 400-599.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class ClientDisconnected(OSError):
    """The response can no longer be delivered (ASGI HTTP spec 2.4: `send` raises an OSError)."""


class AppProtocolError(RuntimeError):
    """The app sent a message that ASGI does not allow; nothing of that message was sent on."""


class LifespanFailed(RuntimeError):
    """The app answered `lifespan.startup.failed` or `lifespan.shutdown.failed`."""


class CertificateRefused(Exception):
    """The certificate or its key cannot be used; the message names the file and says why."""
