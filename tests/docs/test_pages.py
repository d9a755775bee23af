"""The pages, compared with what they speak of."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import minisession
from minisession import Session

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("name", sorted(minisession.__all__))
def test_every_public_name_is_in_the_reference(name: str) -> None:
    page = (ROOT / "docs/reference/api.md").read_text()

    assert re.search(rf"`{name}\b", page)


@pytest.mark.parametrize("name", [name for name in dir(Session) if not name.startswith("_")])
def test_every_public_attribute_of_a_session_is_in_the_reference(name: str) -> None:
    page = (ROOT / "docs/reference/api.md").read_text()

    assert re.search(rf"[.`]{name}\b", page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_of_the_project_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"`((?:tests|benchmarks|docs|minisession)/[\w./-]+\.\w+)`", page.read_text())

    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_link_of_a_page_outside_the_site_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", (ROOT / page).read_text())

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_option_of_the_server_is_in_the_reference() -> None:
    page = (ROOT / "docs/reference/http-server.md").read_text()

    run = subprocess.run(
        [sys.executable, "-m", "minisession", "serve", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    options = set(re.findall(r"^ +(--[a-z-]+)", run.stdout, re.MULTILINE))

    assert "--store" in options
    assert {option for option in options if f"`{option}" not in page} == set()
