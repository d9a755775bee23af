"""What the URL of a Redis store may say; what is wrong is refused with a line that is right."""

from __future__ import annotations

import pytest

from minisession.errors import ConfigError
from minisession.stores import open_store
from minisession.stores._redis.url import Place, parse


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://host", Place("single", (("host", 6379),))),
        ("valkey://host/", Place("single", (("host", 6379),))),
        ("redis://127.0.0.1:7000/3", Place("single", (("127.0.0.1", 7000),), db=3)),
        ("redis://[::1]:7000", Place("single", (("::1", 7000),))),
        ("redis://[::1]", Place("single", (("::1", 6379),))),
        ("redis://host:1", Place("single", (("host", 1),))),
        ("redis://host:65535", Place("single", (("host", 65535),))),
        (
            "rediss://app:p%40ss%2Fword@host?cafile=/etc/ca.pem",
            Place(
                *("single", (("host", 6379),)),
                user="app",
                password="p@ss/word",
                tls=True,
                cafile="/etc/ca.pem",
            ),
        ),
        ("redis://:pass@host", Place("single", (("host", 6379),), password="pass")),
        (
            "redis+sentinel://a,b:1/shop",
            Place("sentinel", (("a", 26379), ("b", 1)), service="shop"),
        ),
        ("valkeys+sentinel://a/x/2", Place("sentinel", (("a", 26379),), "x", 2, tls=True)),
        ("redis+cluster://a:7000,b", Place("cluster", (("a", 7000), ("b", 6379)))),
        ("rediss+cluster://a/0", Place("cluster", (("a", 6379),), tls=True)),
        ("redis://host?prefix=shop%3A", Place("single", (("host", 6379),), prefix="shop:")),
        (
            "redis://host?wait=2&waitaof=1",
            Place("single", (("host", 6379),), replicas=2, synced=(1, 0)),
        ),
        ("redis://host?waitaof=0,1", Place("single", (("host", 6379),), synced=(0, 1))),
    ],
)
def test_a_url_says_where_the_sessions_are(url: str, place: Place) -> None:
    assert parse(url) == place


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://", ("host", "redis://user:password@host:6379/0")),
        ("redis:/host", ("no URL", "redis+cluster://")),
        ("http://host", ("no URL", "redis+sentinel://")),
        ("redis://user@host", ("before the @", "redis://user:password@host:6379/0")),
        ("redis://user:@host", ("before the @",)),
        ("redis://a,b", ("several hosts", "redis+cluster://", "redis+sentinel://")),
        ("redis://ho st", ("host", "a name or an address")),
        ("redis://fe80::1", ("host", "a name or an address")),
        ("redis://127.0.0.1:99999", ("port", "a number from 1 to 65535", "host:6379")),
        ("redis://host:65536", ("port", "a number from 1 to 65535")),
        ("redis://host:0", ("port", "a number from 1 to 65535")),
        ("redis://host:", ("port", "a number from 1 to 65535")),
        ("redis://[::1]:http", ("port", "a number from 1 to 65535")),
        ("redis+cluster://a,b:-1", ("port", "redis+cluster://host1:6379")),
        ("redis://host/db", ("database", "a number")),
        ("redis://host/1/2", ("database", "a number")),
        ("redis+sentinel://host", ("by its name", "redis+sentinel://host1:26379")),
        ("redis+sentinel://host/shop/x", ("database", "a number")),
        ("redis+cluster://host/1", ("one database", "redis+cluster://host1:6379")),
        ("redis://host?wiat=1", ("option 'wiat'", "prefix, wait, waitaof, cafile", "?wait=1")),
        ("redis://app:hu?sh@host", ("percent-encoded", "redis://user:pass%3Fword@host:6379/0")),
        ("redis://host?x-y=1", ("options", "prefix, wait, waitaof, cafile")),
        ("redis://host?wait=1&wait=2", ("at most once",)),
        ("redis://host?wait=-1", ("wait", "number of replicas", "?wait=1")),
        ("redis://host?wait=all", ("wait", "number of replicas")),
        ("redis://host?waitaof=2", ("waitaof", "?waitaof=1,1")),
        ("redis://host?waitaof=1,x", ("waitaof", "?waitaof=1,1")),
        ("redis://host?prefix=", ("prefix", "?prefix=shop:")),
        ("redis://host?prefix=a{b", ("prefix", "without { and }")),
        ("redis://host?cafile=ca.pem", ("cafile", "rediss://host:6379/0?cafile=ca.pem")),
    ],
)
def test_what_is_wrong_is_named_with_a_line_that_is_right(url: str, words: tuple[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(url)

    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    "url",
    [
        "redis://app:hush-hush@host:port",
        "redis://app:hush-hush",
        "redis://app:hush-hush@host/x",
        "redis://app:hush-hush@host?what=1",
        "rediss://app:hush-hush@host?cafile=/nowhere&wait=x",
        "redis+cluster://app:hush-hush@a/1",
        "redis://app:hu?sh-hush@host",
        "redis://app:12?sh-hush@host",
        "redis://app:12?hush-hush=@host",
        "redis://app:12?a=b&hush@host",
    ],
)
def test_a_password_is_not_in_the_error(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url)

    assert "hush" not in str(caught.value)
    assert "hush" not in repr(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://app:hush@host", "<RedisStore redis://host:6379/0>"),
        ("rediss://app:hush@[::1]/1", "<RedisStore rediss://[::1]:6379/1>"),
        ("redis+sentinel://a,b:1/shop", "<RedisStore redis+sentinel://a:26379,b:1/shop/0>"),
        ("valkey+cluster://:hush@a", "<RedisStore redis+cluster://a:6379>"),
    ],
)
def test_a_store_shows_where_it_is_and_no_password(url: str, shown: str) -> None:
    assert repr(open_store(url)) == shown
    assert "hush" not in repr(parse(url))
