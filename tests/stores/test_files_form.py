"""The bytes of a session: what is read is what was written, and nothing else is read as one."""

from __future__ import annotations

import json
import random
import struct
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisession.abc import size_of
from minisession.errors import StoreError
from minisession.stores._files import form
from minisession.stores._files.form import Newer, Unreadable, decode, encode, frame_of, summary_of
from minisession.stores._files.names import (
    FIRST_HANDLES,
    SHARDS,
    handle_of,
    name_of,
    session_of,
    shard_of,
    temporary_of,
)
from minisession.stores._row import Row

LINE = b"minisession session, format 1\n"
DIGEST = 32  # octets

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
times = st.floats(allow_nan=False)
hashes = st.binary(min_size=32, max_size=32)
datas = st.none() | st.binary(max_size=50)
tables = st.dictionaries(texts, st.tuples(datas, st.integers(0, 9)), max_size=5)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    items = draw(tables)
    return Row(
        handle=draw(texts),
        secret=draw(hashes),
        created=draw(times),
        expires=draw(times),
        cookie_until=draw(times),
        principal=draw(st.none() | texts),
        items=items,
        size=sum(size_of(key, data) for key, (data, _) in items.items() if data is not None),
        epoch=draw(st.integers(0, 99)),
        previous=draw(st.none() | hashes),
        previous_loads=draw(st.booleans()),
        grace_until=draw(times),
        cleared=draw(st.integers(-1, 99)),
        tombstones={key for key, (data, _) in items.items() if data is None},
    )


def a_row(handle: str = "h") -> Row:
    items: dict[str, tuple[bytes | None, int]] = {"a": (b"1" * 40, 0), "b": (None, 1), "": (b"", 1)}
    return Row(handle, bytes(32), 1.0, 2.0, 3.0, "ada", items, 41, epoch=1, tombstones={"b"})


def sealed(head: Any, items: bytes = b"") -> bytes:
    """A file that nobody has damaged, with any head."""
    raw = head if isinstance(head, bytes) else json.dumps(head).encode()
    rest = struct.pack(">IQ", len(raw), len(items)) + raw
    return LINE + sha256(rest).digest() + rest + items


def head_of(content: bytes) -> dict[str, Any]:
    frame = frame_of(content)
    head: dict[str, Any] = json.loads(content[frame.head : frame.items])
    return head


@settings(deadline=None)
@given(row=rows())
def test_what_is_read_is_what_was_written(row: Row) -> None:
    read = decode(row.handle, encode(row))

    assert read == row
    assert list(read.items) == list(row.items)


@settings(deadline=None)
@given(row=rows())
def test_the_beginning_is_enough_for_a_list(row: Row) -> None:
    content = encode(row)

    read = summary_of(row.handle, content[: frame_of(content).items])

    assert read.summary() == row.summary()


def test_a_session_of_today_is_a_file_that_every_later_release_reads() -> None:
    """The bytes of format 1: if this fails, files of users can no longer be read."""
    content = encode(a_row())

    assert content.startswith(LINE)
    assert sha256(content).hexdigest() == (
        "0612272905c8174b5be84f5e51ba06c9fcb9ce8663870a64ce711a0bdda3ea20"
    )
    assert decode("h", content) == a_row()


def test_every_octet_that_changes_is_noticed() -> None:
    content = encode(a_row())

    for place in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            with pytest.raises(Unreadable):
                decode("h", bytes(damaged))


def test_every_cut_is_noticed_and_so_is_more_than_all() -> None:
    content = encode(a_row())

    for piece in [content[:end] for end in range(len(content))] + [content + b"x"]:
        with pytest.raises(Unreadable):
            decode("h", piece)


def test_a_cut_beginning_is_no_list_entry() -> None:
    content = encode(a_row())

    for end in range(frame_of(content).items):
        with pytest.raises(Unreadable):
            summary_of("h", content[:end])


@pytest.mark.parametrize("seed", range(20))
def test_octets_that_moved_are_noticed(seed: int) -> None:
    chance = random.Random(seed)
    content = bytearray(encode(a_row()))
    start = chance.randrange(len(content) - 8)
    content[start : start + 8] = chance.randbytes(8)

    with pytest.raises(Unreadable):
        decode("h", bytes(content))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\0" * 500, "does not begin as one of ours"),
        (b"minisession session, format 0\n", "does not begin as one of ours"),
        (LINE + b"x" * 20, "is cut off"),
        (sealed(b"\xff{"), "not JSON"),
        (sealed(b"[" * 100_000), "not JSON"),
        (sealed([]), "of another form"),
        (sealed({}), "of another form"),
        (sealed({**head_of(encode(a_row())), "secret": "no hexadecimal"}), "of another form"),
        (sealed({**head_of(encode(a_row())), "items": [["a"]]}), "of another form"),
        (sealed({**head_of(encode(a_row())), "items": None}), "of another form"),
        (encode(a_row("somebody else")), "is another session's"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_said(content: bytes, said: str) -> None:
    with pytest.raises(Unreadable, match=said) as caught:
        decode("h", content)

    assert not isinstance(caught.value, Newer)


def test_a_newer_format_is_not_damage() -> None:
    with pytest.raises(Newer, match="is of format 2, and this release reads 1"):
        decode("h", LINE.replace(b"1", b"2") + b"whatever it holds")


def test_an_older_format_is_read_and_the_newest_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    old = encode(a_row())
    read_1 = form.READERS[1]
    monkeypatch.setattr(form, "VERSION", 2)
    monkeypatch.setitem(form.READERS, 2, read_1)

    assert decode("h", old) == a_row()
    assert encode(a_row()).startswith(b"minisession session, format 2\n")


# Names


@settings(deadline=None)
@given(handle=st.text(max_size=30))
def test_a_name_is_safe_everywhere_and_leads_back_to_its_handle(handle: str) -> None:
    try:
        name = name_of(handle)
    except StoreError:
        assert any("\ud800" <= character <= "\udfff" for character in handle)
        return

    assert name == name.lower()
    assert name.isascii()
    assert handle_of(name) == handle
    assert session_of(temporary_of(name)) == name
    assert handle_of(temporary_of(name)) is None


@pytest.mark.parametrize(
    "name", ["", "notes.txt", "6a.SESSION", "6A.session", "6 a.session", "6.session", "ff.session"]
)
def test_others_files_have_no_handle(name: str) -> None:
    assert handle_of(name) is None


def test_two_handles_that_differ_by_case_have_two_files_where_names_do_not() -> None:
    assert name_of("Ab").lower() != name_of("aB").lower()


@pytest.mark.parametrize("handle", ["x" * 121, "ä" * 61, "\ud800"])
def test_a_handle_that_no_file_can_be_named_after_is_refused(handle: str) -> None:
    with pytest.raises(StoreError, match="names no file"):
        name_of(handle)


def test_the_longest_handle_fits_into_a_name() -> None:
    assert len(temporary_of(name_of("ä" * 60))) < len(name_of("ä" * 60)) <= 255


@settings(deadline=None)
@given(handles=st.lists(st.text(max_size=4) | st.sampled_from(FIRST_HANDLES), min_size=2))
def test_folders_follow_the_order_of_handles(handles: list[str]) -> None:
    shards = [shard_of(handle) for handle in sorted(handles)]

    assert shards == sorted(shards)


def test_random_handles_fill_the_folders_evenly() -> None:
    chance = random.Random(1)
    alphabet = sorted({handle[0] for handle in FIRST_HANDLES})
    number = 100
    handles = ["".join(chance.choices(alphabet, k=22)) for _ in range(number * len(SHARDS))]

    shards = [shard_of(handle) for handle in handles]

    assert {shards.count(shard) for shard in SHARDS} <= set(range(number // 2, 2 * number))
