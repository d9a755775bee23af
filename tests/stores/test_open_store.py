"""A URL names a store; what names none is refused with those that there are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minisession.errors import ConfigError
from minisession.stores import open_store
from minisession.stores.memory import MemoryStore


def test_a_store_is_itself() -> None:
    store = MemoryStore()

    assert open_store(store) is store


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory://", "<MemoryStore sessions=0>"),
        ("sqlite:///sessions.db", f"<SQLiteStore {os.getcwd()}/sessions.db>"),
        ("sqlite:////var/lib/app/s.db", "<SQLiteStore /var/lib/app/s.db>"),
        ("file:///var/lib/app/sessions", "<FilesStore /var/lib/app/sessions>"),
        ("file:///var/lib/app/sessions/", "<FilesStore /var/lib/app/sessions>"),
        ("redis://user:hush@host/1?prefix=shop:", "<RedisStore redis://host:6379/1>"),
        ("rediss+sentinel://host/shop", "<RedisStore rediss+sentinel://host:26379/shop/0>"),
        ("valkey+cluster://host", "<RedisStore redis+cluster://host:6379>"),
    ],
)
def test_a_url_names_a_store_and_nothing_is_opened(
    url: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert repr(open_store(url)) == shown


@pytest.mark.parametrize(
    "url",
    [
        *["", "sessions.db", "memory://x", "sqlite://", "sqlite:///", "sqlite://sessions.db"],
        *["file://", "file:///", "file:////", "file://sessions", "file://host/sessions", "file:x"],
    ],
)
def test_what_names_no_store_is_refused_with_advice(url: str) -> None:
    with pytest.raises(ConfigError, match=r"'sqlite:///sessions\.db'.*FilesStore\('sessions'\)"):
        open_store(url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///ok.db?x=hush", ("'sqlite:///ok.db'", 'SQLiteStore("ok.db?...")')),
        ("sqlite:////var/s.db?", ("'sqlite:////var/s.db'", 'SQLiteStore("/var/s.db?...")')),
        ("file:///var/s?x=hush", ("'file:///var/s'", 'FilesStore("/var/s?...")')),
    ],
)
def test_a_path_has_no_options_and_a_question_mark_in_it_is_passed_by_the_store(
    url: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match="has no options") as caught:
        open_store(url)

    assert [word for word in words if word not in str(caught.value)] == []
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgres://user:password@host/db", "store=postgres:...: "),
        ("redis:/user:password@host", "store=redis:...: "),
        ("redis:user:password@host", "store=redis:...: "),
        ("sessions.db", "store='sessions.db': "),
    ],
)
def test_a_url_may_hold_a_password_so_only_what_stands_before_it_is_shown(
    url: str, shown: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url)

    assert str(caught.value).startswith(shown)
    assert "password" not in str(caught.value)
