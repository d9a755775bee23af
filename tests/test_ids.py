"""Ids: one spelling each, nothing else passes, and only a hash of the secret is ever kept."""

import base64
import hashlib
import json
import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisession import _ids

HANDLE = "AAECAwQFBgcICQoLDA0ODw"  # the bytes 0, 1, ... 15
SECRET = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"  # the bytes 0, 1, ... 23
ID = f"{HANDLE}.{SECRET}"
ALPHABET = string.ascii_letters + string.digits + "-_"


def counting(n: int) -> bytes:
    return bytes(range(n))


def hostile_cookie_values() -> list[Any]:
    path = Path(__file__).parent / "acceptance" / "cookie_cases.json"
    cases = [case for case in json.loads(path.read_text()) if case.get("valid_id") is False]
    assert len(cases) > 5
    return [pytest.param(text, id=case["id"]) for case in cases for text in sent_values(case)]


def sent_values(case: dict[str, Any]) -> set[str]:
    """What a lenient, a strict and a careless parser of the header could take for the value."""
    fields = case["header"] if isinstance(case["header"], list) else [case["header"]]
    header = unfold("; ".join(fields))
    raw = header.partition(case["name"] + "=")[2]
    expected = {unfold(case["expect"])} if case["expect"] is not None else set()
    return expected | {raw, raw.partition(";")[0]}


def unfold(text: str) -> str:
    return re.sub(r"\{\{REP (.) (\d+)\}\}", lambda m: m[1] * int(m[2]), text)


def test_a_handle_and_a_secret_are_base64url_of_the_random_bytes_they_were_given() -> None:
    assert _ids.new_handle(counting) == HANDLE
    assert _ids.new_secret(counting) == SECRET


def test_new_ids_come_from_a_source_that_never_repeats_itself() -> None:
    handles = {_ids.new_handle() for _ in range(1000)}
    secrets = {_ids.new_secret() for _ in range(1000)}

    assert len(handles) == len(secrets) == 1000


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=24, max_size=24))
def test_every_id_that_can_be_made_splits_into_what_it_was_made_of(h: bytes, s: bytes) -> None:
    handle, secret = _ids.new_handle(lambda _: h), _ids.new_secret(lambda _: s)

    text = _ids.join_id(handle, secret)

    assert len(text) == 55
    assert _ids.split_id(text) == (handle, secret)
    assert _ids.is_handle(handle)


@pytest.mark.parametrize("text", hostile_cookie_values())
def test_a_hostile_cookie_value_is_no_id(text: str) -> None:
    assert _ids.split_id(text) is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(".", id="only the dot"),
        pytest.param(HANDLE, id="only the handle"),
        pytest.param(f"{HANDLE}.", id="no secret"),
        pytest.param(f".{SECRET}", id="no handle"),
        pytest.param(f"{SECRET}.{HANDLE}", id="the wrong way round"),
        pytest.param(f"{HANDLE}{SECRET}A", id="no dot"),
        pytest.param(f"{HANDLE}:{SECRET}", id="another separator"),
        pytest.param(f"{ID}\n", id="a newline at the end, which $ would allow"),
        pytest.param(f" {ID}", id="a space before"),
        pytest.param(f"{ID} ", id="a space after"),
        pytest.param(f'"{ID}"', id="quoted"),
        pytest.param(f"{ID}\x00", id="NUL after"),
        pytest.param(f"{ID}=", id="padded"),
        pytest.param(f"{ID[:-1]}", id="one character short"),
        pytest.param(f"{ID}A", id="one character long"),
        pytest.param(f"{HANDLE[:-1]}x.{SECRET}", id="spare bits set"),
        pytest.param(f"{HANDLE}.{SECRET[:-1]}+", id="the alphabet of plain base64: plus"),
        pytest.param(f"{HANDLE}.{SECRET[:-1]}/", id="the alphabet of plain base64: slash"),
        pytest.param(f"{HANDLE}.{SECRET[:-1]}\u0661", id="an Arabic digit, which \\d would allow"),
        pytest.param(f"{HANDLE}.{SECRET[:-1]}\u00e9", id="a letter that \\w would allow"),
        pytest.param(f"{HANDLE}.{SECRET[:-1]}\uff21", id="a full-width A"),
        pytest.param(f"../{HANDLE[3:]}.{SECRET}", id="a path"),
        pytest.param(f"{HANDLE}.{SECRET}\ud800", id="a lone surrogate"),
    ],
)
def test_a_text_that_is_nearly_an_id_is_no_id(text: str) -> None:
    assert _ids.split_id(text) is None


def test_a_change_of_any_character_gives_no_id_or_that_of_another_session() -> None:
    variants = [f"{ID[:i]}{chr(c)}{ID[i + 1 :]}" for i in range(len(ID)) for c in range(256)]

    ids = {text for text in variants if _ids.split_id(text) is not None}

    assert len(ids) == 1 + (21 + 32) * 63 + 3
    assert len({raw_bytes(text) for text in ids}) == len(ids)


def raw_bytes(text: str) -> tuple[bytes, ...]:
    return tuple(base64.urlsafe_b64decode(part + "==") for part in text.split("."))


def test_the_last_character_of_a_handle_has_four_spellings_and_not_sixty_four() -> None:
    accepted = {last for last in ALPHABET if _ids.is_handle(HANDLE[:-1] + last)}

    assert accepted == set("AQgw")


@pytest.mark.parametrize("text", ["", HANDLE[:-1], HANDLE + "A", HANDLE + "\n", ID, "*" * 22])
def test_what_is_not_exactly_a_handle_is_not_one(text: str) -> None:
    assert not _ids.is_handle(text)


def test_the_hash_is_the_sha_256_of_the_secret_as_it_is_written() -> None:
    assert _ids.hash_secret(SECRET) == hashlib.sha256(SECRET.encode()).digest()


def test_a_secret_is_known_again_by_its_hash_alone() -> None:
    stored = _ids.hash_secret(SECRET)

    assert _ids.same_hash(stored, _ids.hash_secret(SECRET))
    assert not _ids.same_hash(stored, _ids.hash_secret(SECRET[:-1] + "Y"))
    assert not _ids.same_hash(stored, stored[:-1])
