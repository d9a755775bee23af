"""The access log: one record for each response, on the logger `minisession.server.access`.

Owns what is told of a request: who, what, the answer, how long. Headers and bodies are never told,
cookies least of all; nor are queries, in which tokens travel. How a record looks in the end is
decided by whoever sets up logging; the attributes below are there for them.
"""

from __future__ import annotations

import logging

from .forwarded import Client
from .requests import Request

access_logger = logging.getLogger("minisession.server.access")


def log_access(
    client: Client | None, request: Request, status: int, octets: int, seconds: float
) -> None:
    """Log one response; `status` is 0 if the client went before there was one.

    The record has an attribute `access`: a dict with `client`, `method`, `path`, `version`,
    `status`, `octets` (of the response, with its head) and `milliseconds`.
    """
    told = {
        "client": client[0] if client else None,
        "method": request.method.decode("ascii"),
        "path": request.target.raw_path.decode("ascii"),
        "version": request.http_version,
        "status": status or None,
        "octets": octets,
        "milliseconds": round(seconds * 1000, 1),
    }
    access_logger.info(
        '%s "%s %s HTTP/%s" %s %d %.1f ms',
        told["client"] or "-",
        *(told[name] for name in ("method", "path", "version")),
        status or "-",
        octets,
        told["milliseconds"],
        extra={"access": told},
    )
