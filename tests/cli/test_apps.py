"""From a name on the command line to an application, or to a line that would be right."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from minisession.cli.apps import AppNotFound, load_app

SHOP = """
async def app(scope, receive, send):
    pass

def create():
    return app

def create_nothing():
    return None

class site:
    class web:
        app = staticmethod(app)

prices = {}
"""


@pytest.fixture(autouse=True)
def in_a_folder_with_a_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "web.py").write_text(SHOP)
    (tmp_path / "broken.py").write_text("import a_module_that_is_missing")
    (tmp_path / "empty.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("shop", "package", "package.web", "broken", "empty"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize(
    "name", ["shop:app", "package.web:app", "shop:site.web.app", "shop:create()"]
)
def test_an_application_is_found_from_the_folder_that_one_is_in(name: str) -> None:
    app = load_app(name)

    assert app.__name__ == "app"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shop", "'shop' is not MODULE:APP. .*: minisession serve shop:app$"),
        ("shop.py", "minisession serve shop:app$"),
        ("shop.py:create()", r"minisession serve shop:create\(\)$"),
        ("package/web.py", "minisession serve package.web:app$"),
        ("", "'' is not MODULE:APP. .*: minisession serve shop:app$"),
        ("shop:", "minisession serve shop:app$"),
        ("shop:create(1)", "minisession serve shop:app$"),
        ("missing:app", "no module 'missing' in .*`minisession serve shop:app`"),
        ("package.missing:app", "no module 'package.missing' in "),
        ("shop.missing:app", "no module 'shop.missing' in "),
        ("shop:ap", "'shop' has no 'ap'; it has app, create, .*serve shop:app$"),
        ("shop:crate", "serve shop:create$"),
        ("empty:application", "it has nothing that can be called. .*serve empty:app$"),
        ("shop:site.api", "shop:site.api: a type has no 'api'"),
        ("shop:prices", "shop:prices is a dict, not an ASGI application. .* serve shop:app,"),
        ("shop:prices()", r"shop:prices\(\) is a dict"),
        ("shop:create_nothing()", "is a NoneType, not an ASGI application"),
    ],
)
def test_what_is_no_application_is_refused_with_a_line_that_would_be_right(
    name: str, said: str
) -> None:
    with pytest.raises(AppNotFound, match=said):
        load_app(name)


def test_a_module_that_the_application_lacks_is_not_taken_for_the_application() -> None:
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_missing"):
        load_app("broken:app")
