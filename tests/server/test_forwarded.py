from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisession.server.errors import RequestRefused
from minisession.server.forwarded import Origin, TrustedProxies

PROXY = ("10.0.0.1", 4711)
STRANGER = ("192.0.2.9", 4711)


def origin(
    allowed: str, *fields: tuple[str, str], client: tuple[str, int] | None = PROXY
) -> Origin:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in fields]
    return TrustedProxies(allowed).origin(headers, client, "http")


@pytest.mark.parametrize("allowed", ["", "10.0.0.2", "192.168.0.0/16, ::1", "unix"])
def test_a_proxy_that_is_not_named_is_not_believed(allowed: str) -> None:
    fields = ("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", "https")

    assert origin(allowed, *fields) == Origin(PROXY, "http")
    assert origin(allowed, ("forwarded", "for=198.51.100.7;proto=https")) == Origin(PROXY, "http")
    assert origin(allowed, ("forwarded", "not even readable")) == Origin(PROXY, "http")


@pytest.mark.parametrize(
    ("client", "allowed"),
    [
        (PROXY, "10.0.0.1"),
        (PROXY, "127.0.0.1, 10.0.0.0/8"),
        (PROXY, "*"),
        (("::ffff:10.0.0.1", 1), "10.0.0.1"),
        (("2001:db8::1", 1), "2001:db8::/32"),
        (None, "unix"),
        (None, "*"),
    ],
)
def test_a_proxy_that_is_named_is_believed(client: tuple[str, int] | None, allowed: str) -> None:
    expected = Origin(("198.51.100.7", 0), "https")
    common = ("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", "https")

    assert origin(allowed, *common, client=client) == expected
    assert origin(allowed, ("forwarded", "for=198.51.100.7;proto=https"), client=client) == expected


def test_without_a_word_from_the_proxy_the_peer_is_the_client() -> None:
    assert origin("*") == Origin(PROXY, "http")
    assert origin("*", ("x-forwarded-for", " , ")) == Origin(PROXY, "http")
    assert origin("*", ("forwarded", "")) == Origin(PROXY, "http")


@pytest.mark.parametrize(
    ("fields", "client"),
    [
        # the proxy adds what it sees to what the client has made up
        ([("x-forwarded-for", "6.6.6.6, 198.51.100.7")], "198.51.100.7"),
        ([("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "198.51.100.7")], "198.51.100.7"),
        ([("forwarded", "for=6.6.6.6, for=198.51.100.7")], "198.51.100.7"),
        # a chain of trusted proxies
        ([("x-forwarded-for", "6.6.6.6, 198.51.100.7, 10.0.0.3, 10.0.0.2")], "198.51.100.7"),
        # all are trusted: the first one began
        ([("x-forwarded-for", "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
    ],
)
def test_what_the_client_has_made_up_is_not_believed(
    fields: list[tuple[str, str]], client: str
) -> None:
    assert origin("10.0.0.0/8", *fields).client == (client, 0)


def test_whoever_connects_is_believed_but_not_whom_it_names() -> None:
    assert origin("*", ("x-forwarded-for", "6.6.6.6, 198.51.100.7")).client == ("198.51.100.7", 0)


@pytest.mark.parametrize(
    ("node", "client"),
    [
        ("198.51.100.7:8080", ("198.51.100.7", 8080)),
        ("2001:db8::7", ("2001:db8::7", 0)),
        ("[2001:db8::7]", ("2001:db8::7", 0)),
        ("[2001:DB8::7]:8080", ("2001:db8::7", 8080)),
        ("::ffff:198.51.100.7", ("198.51.100.7", 0)),
        ("198.51.100.7:_obfuscated", ("198.51.100.7", 0)),
        ("unknown", None),
        ("_hidden", None),
        ("198.51.100.700", None),
        ("[2001:db8::7", None),
        ("a\xe9", None),
    ],
)
def test_a_node_is_an_address_with_or_without_a_port_or_nobody(
    node: str, client: tuple[str, int] | None
) -> None:
    assert origin("*", ("x-forwarded-for", node)).client == client
    if node.isascii():
        assert origin("*", ("forwarded", f'for="{node}"')).client == client


@pytest.mark.parametrize(
    ("fields", "scheme"),
    [
        ([("x-forwarded-proto", "https")], "https"),
        ([("x-forwarded-proto", "HTTPS")], "https"),
        ([("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", "http")], "http"),
        # each proxy has added its own
        (
            [
                ("x-forwarded-for", "6.6.6.6, 198.51.100.7, 10.0.0.2"),
                ("x-forwarded-proto", "http, https, http"),
            ],
            "https",
        ),
        # only the last one has
        (
            [
                ("x-forwarded-for", "6.6.6.6, 198.51.100.7, 10.0.0.2"),
                ("x-forwarded-proto", "https"),
            ],
            "https",
        ),
        ([("forwarded", "proto=https")], "https"),
        ([("forwarded", 'For=198.51.100.7;Proto="https";by=_x;host="a,b"')], "https"),
        ([("forwarded", "for=198.51.100.7;proto=https, for=10.0.0.2;proto=http")], "https"),
        ([("forwarded", "for=198.51.100.7;proto=https, for=10.0.0.2")], "https"),
    ],
)
def test_the_scheme_is_that_of_the_client(fields: list[tuple[str, str]], scheme: str) -> None:
    assert origin("10.0.0.0/8", *fields).scheme == scheme


def test_a_scheme_without_an_address_leaves_the_address_as_it_is() -> None:
    assert origin("*", ("x-forwarded-proto", "https")) == Origin(PROXY, "https")
    assert origin("*", ("forwarded", "proto=https")) == Origin(PROXY, "https")


@pytest.mark.parametrize(
    "fields",
    [
        [("x-forwarded-proto", "gopher")],
        [("forwarded", "for=198.51.100.7;proto=gopher")],
        [("forwarded", "for=")],
        [("forwarded", "for")],
        [("forwarded", 'for="198.51.100.7')],
        [("forwarded", "for=198.51.100.7 for=6.6.6.6")],
        [("forwarded", "for=198.51.100.7;for=6.6.6.6")],
        [("forwarded", "for=198.51.100.7, , for=6.6.6.6")],
        [("forwarded", "for=198.51.100.7"), ("x-forwarded-for", "6.6.6.6")],
        [("forwarded", "for=6.6.6.6;proto=https"), ("x-forwarded-for", "6.6.6.6")],
    ],
)
def test_what_a_trusted_proxy_passes_on_and_nobody_can_read_is_refused(
    fields: list[tuple[str, str]],
) -> None:
    with pytest.raises(RequestRefused) as refused:
        origin("*", *fields)

    assert refused.value.status == 400
    assert "6.6.6.6" not in str(refused.value)


def test_two_kinds_of_fields_that_agree_are_as_good_as_one() -> None:
    common = ("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", "https")

    both = origin("*", *common, ("forwarded", "for=198.51.100.7;proto=https"))

    assert both == Origin(("198.51.100.7", 0), "https")


@pytest.mark.parametrize("allowed", ["10.0.0.1/8", "proxy.example", "10.0.0.0/8; ::1", "unix:"])
def test_what_is_no_address_and_no_network_is_refused(allowed: str) -> None:
    with pytest.raises(
        ValueError, match=r"allowed are addresses and networks such as 127\.0\.0\.1"
    ):
        TrustedProxies(allowed)


def test_no_proxies_are_false() -> None:
    assert not TrustedProxies(" , ")
    assert all(map(bool, map(TrustedProxies, ["*", "unix", "::1"])))


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=20))
def test_whatever_the_fields_hold_there_is_an_origin_or_a_refusal(
    standard: bytes, common: bytes, scheme: bytes
) -> None:
    headers = [(b"forwarded", standard), (b"x-forwarded-for", common)]
    headers += [(b"x-forwarded-proto", scheme)]
    try:
        found = TrustedProxies("10.0.0.0/8").origin(headers, PROXY, "http")
    except RequestRefused:
        return
    assert found.scheme in ("http", "https")
    assert TrustedProxies("10.0.0.0/8").origin(headers, STRANGER, "http").client == STRANGER
