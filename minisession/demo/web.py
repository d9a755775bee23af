"""Forms in, responses out: the little of HTTP that the demo needs in place of a framework.

Owns routing, the security headers of every response, and the refusal of requests that another
site's page made a browser send. It has never heard of sessions.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl

Form = Mapping[str, str]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

STATIC = files(__name__.rpartition(".")[0]) / "static"

MAX_FORM = 4096  # octets; the longest form of the page has some 200

SECURITY_HEADERS = {
    # Everything comes from here, nothing inline, and nobody may frame the page.
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    # Not "no-referrer": with that, browsers send `Origin: null` with our own forms.
    "referrer-policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response; the headers are those beyond Content-Length and security."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Form], Awaitable[Response]]


def as_html(text: str) -> Response:
    """Return a page that belongs to one visitor."""
    return _content(text.encode(), "text/html; charset=utf-8", "private, no-cache")


def as_json(value: object) -> Response:
    """Return a value for the page's script."""
    return _content(json.dumps(value).encode(), "application/json", "private, no-store")


def see_other(location: str) -> Response:
    """Have the browser GET another page, so that reloading it sends no form again."""
    return Response(303, headers={"location": location})


def refuse(status: int, reason: str, **headers: str) -> Response:
    """Say in plain text why a request is not answered."""
    plain = {"content-type": "text/plain; charset=utf-8", **headers}
    return Response(status, f"{status} {reason}\n".encode(), plain)


def static_files() -> Mapping[str, Response]:
    """Return the page's style, script and icon, by path."""
    types = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    return {
        f"/static/{file.name}": _content(file.read_bytes(), types[ending], "no-cache")
        for file in STATIC.iterdir()
        if (ending := file.name[file.name.rfind(".") :]) in types
    }


def _content(body: bytes, content_type: str, cache_control: str) -> Response:
    return Response(200, body, {"content-type": content_type, "cache-control": cache_control})


class Site:
    """An ASGI 3 application of handlers by method and path, and of fixed responses by path."""

    def __init__(
        self, routes: Mapping[tuple[str, str], Handler], fixed: Mapping[str, Response]
    ) -> None:
        self._routes = routes
        self._fixed = fixed

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, or live through the lifespan."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await _send(await self._respond(scope, receive), send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _respond(self, scope: Mapping[str, Any], receive: Receive) -> Response:
        path, headers = scope["path"], dict(scope["headers"])
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if method == "GET" and path in self._fixed:
            return self._fixed[path]
        handler = self._routes.get((method, path))
        if handler is None:
            return self._refuse_unknown(path)
        if method == "GET":
            return await handler({})
        if is_from_elsewhere(headers):
            return refuse(403, "Forbidden: this form is not from this page")
        body = await _read(receive)
        if body is None:
            return refuse(413, f"Content Too Large: forms have up to {MAX_FORM} octets")
        text = body.decode("utf-8", "replace")
        return await handler(dict(parse_qsl(text, keep_blank_values=True)))

    def _refuse_unknown(self, path: str) -> Response:
        methods = {method for method, known in self._routes if known == path}
        if path in self._fixed:
            methods.add("GET")
        if not methods:
            return refuse(404, "Not Found")
        return refuse(405, "Method Not Allowed", allow=", ".join(sorted(methods)))


def is_from_elsewhere(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a page that is not ours made the browser send this request.

    The cookie's SameSite=Lax keeps other sites out, but to it all ports of a host are one site,
    and all applications on one's own machine with them. Browsers say where a request comes from in
    Sec-Fetch-Site, to plain http on other hosts than localhost only in Origin; what sends neither
    is no browser, and carries nobody's cookie against their will.
    """
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site not in (b"same-origin", b"none")
    origin = headers.get(b"origin")
    return origin is not None and origin.partition(b"://")[2] != headers.get(b"host")


async def _read(receive: Receive) -> bytes | None:
    """Return the request's body; None if it is too large, or the client left before its end."""
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if len(body) > MAX_FORM or message["type"] == "http.disconnect":
            return None
        if not message.get("more_body", False):
            return body


async def _send(response: Response, send: Send) -> None:
    headers = {**SECURITY_HEADERS, "content-length": str(len(response.body)), **response.headers}
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": encoded})
    await send({"type": "http.response.body", "body": response.body})


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
