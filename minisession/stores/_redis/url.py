"""What the URL of a Redis store says, checked part by part.

It owns the grammar and the errors that say which line would be right. A password is never shown:
neither in an error nor in the `repr` of what comes out.

    redis://[user:password@]host[:6379][/db][?options]      a single server
    redis+sentinel://host[:26379],host/service[/db]         the primary that Sentinel names
    redis+cluster://host[:6379],host                        a cluster, by any of its nodes

`rediss` instead of `redis` is TLS; `valkey` and `valkeys` mean the same two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote

from minisession.errors import ConfigError

Kind = Literal["single", "sentinel", "cluster"]

SCHEME = re.compile(r"(?:redis|valkey)(s?)(?:\+(sentinel|cluster))?")
EXAMPLES = {
    "single": "redis://user:password@host:6379/0",
    "sentinel": "redis+sentinel://host1:26379,host2:26379/service/0",
    "cluster": "redis+cluster://host1:6379,host2:6379",
}
PORTS = {"single": 6379, "sentinel": 26379, "cluster": 6379}
OPTIONS = ("prefix", "wait", "waitaof", "cafile")
HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s\[\]:/?#@,]+)(?::([^:]*))?")
PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store's sessions are, and how to get there."""

    kind: Kind
    hosts: tuple[tuple[str, int], ...]
    service: str = ""
    db: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    cafile: str | None = None
    prefix: str = "minisession:"
    replicas: int = 0
    """How many replicas must have a change before it is acknowledged (WAIT)."""
    synced: tuple[int, int] | None = None
    """On how many disks, here and of replicas, a change must be by then (WAITAOF)."""

    def __str__(self) -> str:
        scheme = "rediss" if self.tls else "redis"
        suffix = "" if self.kind == "single" else f"+{self.kind}"
        hosts = ",".join(f"[{h}]:{p}" if ":" in h else f"{h}:{p}" for h, p in self.hosts)
        path = "" if self.kind == "cluster" else f"/{self.db}"
        service = f"/{self.service}" if self.service else ""
        return f"{scheme}{suffix}://{hosts}{service}{path}"


def is_redis(scheme: str) -> bool:
    """Tell whether a URL with this scheme names a Redis store."""
    return SCHEME.fullmatch(scheme) is not None


def parse(url: str) -> Place:
    """Return what a URL says.

    Raises:
        ConfigError: a part of it is not allowed.
    """
    scheme, separator, rest = url.partition("://")
    match = SCHEME.fullmatch(scheme)
    if match is None or not separator:
        raise ConfigError(
            "RedisStore(...): this is no URL of a Redis server; allowed are"
            f" {', '.join(map(repr, EXAMPLES.values()))}, with rediss for TLS"
        )
    kind: Kind = _kind(match[2])
    address, _, query = rest.partition("?")
    credentials, at, located = address.rpartition("@")
    authority, _, path = located.partition("/")
    user, password = _credentials(credentials, kind) if at else (None, None)
    service, db = _path(path, kind)
    options = _options(query, kind)
    cafile = options.get("cafile")
    if cafile is not None and not match[1]:
        raise refused(kind, "cafile", "it is for TLS", f"rediss://host:6379/0?cafile={cafile}")
    return Place(
        kind=kind,
        hosts=_hosts(authority, kind),
        service=service,
        db=db,
        user=user,
        password=password,
        tls=bool(match[1]),
        cafile=cafile,
        prefix=_prefix(options, kind),
        replicas=_count(options, "wait", kind),
        synced=_synced(options, kind),
    )


def refused(kind: Kind, part: str, why: str, right: str | None = None) -> ConfigError:
    """Return the error that names the part of a URL that is not allowed, and a right line."""
    return ConfigError(
        f"the URL of the Redis store: {part}: {why}; allowed is, for example,"
        f" {right or EXAMPLES[kind]!r}"
    )


def _kind(name: str | None) -> Kind:
    if name is None:
        return "single"
    return "sentinel" if name == "sentinel" else "cluster"


def _credentials(text: str, kind: Kind) -> tuple[str | None, str | None]:
    user, colon, password = text.partition(":")
    if not colon or not password:
        raise refused(kind, "user and password", "before the @ there must be user:password")
    return unquote(user) or None, unquote(password)


def _hosts(authority: str, kind: Kind) -> tuple[tuple[str, int], ...]:
    hosts = []
    for part in authority.split(","):
        match = HOST.fullmatch(part)
        if match is None:
            raise refused(kind, "host", "each must be a name or an address, with a port or without")
        hosts.append((match[1].strip("[]"), _port(match[2], kind)))
    if kind == "single" and len(hosts) > 1:
        right = f"{EXAMPLES['cluster']}' or '{EXAMPLES['sentinel']}"
        raise refused(kind, "host", "several hosts are a cluster or Sentinels", right)
    return tuple(hosts)


def _port(text: str | None, kind: Kind) -> int:
    if text is None:
        return PORTS[kind]
    if not PORT.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise refused(kind, "port", "it must be a number from 1 to 65535")
    return int(text)


def _path(path: str, kind: Kind) -> tuple[str, int]:
    parts = path.split("/") if path else []
    if kind == "cluster":
        if parts and parts != ["0"]:
            raise refused(kind, "path", "a cluster has one database, and it has no name")
        return "", 0
    service = ""
    if kind == "sentinel":
        if not parts or not parts[0]:
            raise refused(kind, "path", "Sentinel is asked for a service by its name")
        service = unquote(parts.pop(0))
    db = parts[0] if parts else "0"
    if len(parts) > 1 or not db.isdecimal() or not db.isascii():
        raise refused(kind, "database", "it must be a number")
    return service, int(db)


def _options(query: str, kind: Kind) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    unknown = sorted(set(options).difference(OPTIONS))
    if any("@" in f"{name}{options[name]}" for name in unknown):  # and nothing of it is shown
        why = "the characters ? @ : / # in a user or a password must be percent-encoded"
        raise refused(kind, "options", why, "redis://user:pass%3Fword@host:6379/0")
    if unknown or len(options) != len(pairs):
        shown = unknown and unknown[0].isascii() and unknown[0].isalpha()
        what = f"option {unknown[0]!r}" if shown else "options"
        right = f"{EXAMPLES[kind]}?wait=1"
        raise refused(kind, what, f"there are {', '.join(OPTIONS)}, each at most once", right)
    return options


def _prefix(options: Mapping[str, str], kind: Kind) -> str:
    prefix = options.get("prefix", "minisession:")
    if not prefix or not prefix.isprintable() or set("{}").intersection(prefix):
        why = "it must be visible text without { and }, which mark the slot of a key"
        raise refused(kind, "prefix", why, f"{EXAMPLES[kind]}?prefix=shop:")
    return prefix


def _count(options: Mapping[str, str], name: str, kind: Kind) -> int:
    text = options.get(name, "0")
    if not (text.isascii() and text.isdecimal() and len(text) < 3):
        why = "it must be the number of replicas that must have a change"
        raise refused(kind, name, why, f"{EXAMPLES[kind]}?{name}=1")
    return int(text)


def _synced(options: Mapping[str, str], kind: Kind) -> tuple[int, int] | None:
    if "waitaof" not in options:
        return None
    here, _, there = options["waitaof"].partition(",")
    if here not in ("0", "1") or not (there or "0").isdecimal() or len(there) > 2:
        why = "it must say whether the server's own disk must have a change, and how many replicas'"
        raise refused(kind, "waitaof", why, f"{EXAMPLES[kind]}?waitaof=1,1")
    return int(here), int(there or "0")
