"""Who sent a request that a proxy has passed on, and by which scheme.

Owns the fields in which proxies say so, Forwarded (RFC 7239) and X-Forwarded-For and -Proto, and
the question whom to believe: nobody, unless the configuration names them. It knows nothing of
connections.

Every proxy adds an element at the end. From the end on, elements are believed as long as a trusted
proxy wrote them; the first address that is none of theirs is the client's, and what stands before
it was written by the client.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import NamedTuple

from .errors import RequestRefused

Client = tuple[str, int]  # address and port
Headers = Iterable[tuple[bytes, bytes]]

_SCHEMES = {b"http": "http", b"https": "https"}

# RFC 7239 section 4: pairs of a token and a value, which is a token or a quoted string.
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = re.compile(rb"(" + _TOKEN + rb")=(" + _TOKEN + rb'|"(?:[^"\\]|\\.)*")')
_ELEMENT_END = re.compile(rb"[ \t]*(,|$)[ \t]*")
_QUOTED_PAIR = re.compile(rb"\\(.)")

# RFC 7239 section 6, and what is found in X-Forwarded-For: an IPv6 address has brackets if a port
# follows. A port may be obfuscated ("_x"); what cannot be read is no port.
_NODE = re.compile(r"\[([^]]+)\](?::(\w+))?|([^:]+)(?::(\w+))?|(.+)")


class Origin(NamedTuple):
    """Where a request came from; `client` is None if that is unknown."""

    client: Client | None
    scheme: str


class _Hop(NamedTuple):
    """What one proxy said of the request as it came to it; "" and None where it said nothing."""

    node: str
    scheme: str | None


class TrustedProxies:
    """The proxies that are believed.

    Args:
        allowed: addresses and networks, separated by commas: "127.0.0.1, 10.0.0.0/8"; "unix" for
            whoever connects through a Unix socket; "*" for whoever connects, which is safe only
            where nobody but the proxy can. Of further proxies before that one, only those are
            believed whose addresses are named. "" believes nobody.

    Raises:
        ValueError: a word is none of these; the message names it.
    """

    def __init__(self, allowed: str) -> None:
        words = [word.strip() for word in allowed.split(",") if word.strip()]
        self._any_peer = "*" in words
        self._any_local = self._any_peer or "unix" in words
        self._networks = [_network(word) for word in words if word not in ("*", "unix")]

    def __bool__(self) -> bool:
        return self._any_local or bool(self._networks)

    def origin(self, headers: Headers, client: Client | None, scheme: str) -> Origin:
        """Return where a request came from: from its peer, if that is not to be believed.

        Args:
            headers: names in lower case.
            client: the peer; None if it came through a Unix socket.
            scheme: of the connection.

        Raises:
            RequestRefused: 400, a field cannot be read; or both kinds are there and do not agree,
                of which the proxy has written only one.
        """
        direct = Origin(client, scheme)
        if not (self._any_local if client is None else self._any_peer or self._trusts(client)):
            return direct
        standard, common = _standard_hops(headers), _common_hops(headers)
        if standard and common and self._first(standard, direct) != self._first(common, direct):
            raise RequestRefused(400, "Forwarded and X-Forwarded-For contradict each other")
        return self._first(standard or common, direct)

    def _first(self, hops: list[_Hop], origin: Origin) -> Origin:
        """Follow the hops from the last one to the first that no trusted proxy is."""
        for hop in reversed(hops):
            client = _address(hop.node) if hop.node else origin.client
            origin = Origin(client, hop.scheme or origin.scheme)
            if client is None or not hop.node or not self._trusts(client):
                break
        return origin

    def _trusts(self, client: Client) -> bool:
        address = _plain(ip_address(client[0]))
        return any(address in network for network in self._networks)


def _network(word: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(word)
    except ValueError:
        raise ValueError(
            f"{word!r}: allowed are addresses and networks such as 127.0.0.1 and 10.0.0.0/8,"
            " unix, and *"
        ) from None


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """An IPv4 address that a socket for both families shows as ::ffff:a.b.c.d is the same one."""
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _address(node: str) -> Client | None:
    """Return address and port (0 if unknown) of a node; None if it hides its address."""
    match = _NODE.fullmatch(node)
    host, port = (match[1] or match[3] or match[5], match[2] or match[4]) if match else ("", None)
    try:
        return str(_plain(ip_address(host))), int(port) if port and port.isdigit() else 0
    except ValueError:
        return None


def _standard_hops(headers: Headers) -> list[_Hop]:
    """Read Forwarded (RFC 7239)."""
    text = _joined(headers, b"forwarded")
    hops, at = [], 0
    while at < len(text):
        pairs: dict[bytes, bytes] = {}
        while match := _PAIR.match(text, at):
            if pairs.setdefault(match[1].lower(), match[2]) != match[2]:
                raise RequestRefused(400, "a parameter stands twice in one element of Forwarded")
            at = match.end()
            if text[at : at + 1] != b";":
                break
            at += 1
        end = _ELEMENT_END.match(text, at)
        if end is None or not pairs:
            raise RequestRefused(400, "Forwarded cannot be read")
        at = end.end()
        node = _unquoted(pairs.get(b"for", b"")).decode("latin-1")
        hops.append(_Hop(node, _scheme(_unquoted(pairs[b"proto"])) if b"proto" in pairs else None))
    return hops


def _common_hops(headers: Headers) -> list[_Hop]:
    """Read X-Forwarded-For and X-Forwarded-Proto, of which the second may be shorter."""
    nodes = _listed(headers, b"x-forwarded-for")
    schemes = [_scheme(value) for value in _listed(headers, b"x-forwarded-proto")]
    if len(schemes) != len(nodes):  # one proxy sets the scheme, and another adds the address
        last = schemes[-1] if schemes else None
        nodes = nodes or [b""] * bool(schemes)
        return [_Hop(node.decode("latin-1"), last) for node in nodes]
    pairs = zip(nodes, schemes, strict=True)
    return [_Hop(node.decode("latin-1"), scheme) for node, scheme in pairs]


def _joined(headers: Headers, name: bytes) -> bytes:
    """Several fields of one name are one list (RFC 9110 section 5.2)."""
    return b", ".join(value for key, value in headers if key == name)


def _listed(headers: Headers, name: bytes) -> list[bytes]:
    return [part for part in map(bytes.strip, _joined(headers, name).split(b",")) if part]


def _scheme(value: bytes) -> str:
    if (scheme := _SCHEMES.get(value.lower())) is None:
        raise RequestRefused(400, "a proxy names a scheme other than http and https")
    return scheme


def _unquoted(value: bytes) -> bytes:
    return _QUOTED_PAIR.sub(rb"\1", value[1:-1]) if value.startswith(b'"') else value
