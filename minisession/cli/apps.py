"""From "module:app" to the ASGI application: owns the import, and what is said if it fails.

An exception inside the application's own module is not caught: its traceback says more than any
message could.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

ASGIApp = Callable[..., Awaitable[None]]

_SHAPE = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<path>\w+(\.\w+)*)(?P<call>\(\))?")


class AppNotFound(Exception):
    """No application can be had by this name; the message says which line would be right."""


def load_app(name: str) -> ASGIApp:
    """Import "module:app" from this folder or what is installed; call "module:create()".

    This folder becomes the first place from which modules are imported, as with `python -m`.

    Raises:
        AppNotFound: the name has another form, there is no such module or name in it, or what it
            names is no application.
    """
    match = _SHAPE.fullmatch(name)
    if match is None or match["module"].endswith(".py"):
        raise AppNotFound(f"{name!r} is not MODULE:APP. {_suggestion_for(name)}")
    found = _follow(_import(match["module"]), match["path"])
    if match["call"]:
        _require_callable(found, name)
        found = found()
    _require_callable(found, name)
    app: ASGIApp = found
    return app


def _import(module: str) -> ModuleType:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it imports is not
        raise AppNotFound(
            f"there is no module {error.name!r} in {folder}, and none is installed."
            " Start in the folder from which Python imports it: for web/shop.py,"
            " `cd web` and `minisession serve shop:app`"
        ) from None


def _follow(module: ModuleType, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            raise AppNotFound(_missing(module, found, path, part))
        found = getattr(found, part)
    return found


def _missing(module: ModuleType, owner: object, path: str, part: str) -> str:
    if owner is not module:
        return f"{module.__name__}:{path}: a {type(owner).__name__} has no {part!r}"
    names = [
        name
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and not isinstance(value, type)
    ]
    close = difflib.get_close_matches(part, names, n=1, cutoff=0.5)
    right = f"minisession serve {module.__name__}:{close[0] if close else 'app'}"
    has = f"it has {', '.join(sorted(names))}" if names else "it has nothing that can be called"
    return f"the module {module.__name__!r} has no {part!r}; {has}. Perhaps: {right}"


def _require_callable(found: object, name: str) -> None:
    if callable(found):
        return
    raise AppNotFound(
        f"{name} is a {type(found).__name__}, not an ASGI application. Name one, as in"
        f" minisession serve {name.partition(':')[0]}:app, or a function that makes one, as in"
        f" {name.partition(':')[0]}:create()"
    )


def _suggestion_for(name: str) -> str:
    module = name.partition(":")[0].removesuffix(".py").replace(os.sep, ".").strip(".")
    app = name.partition(":")[2] or "app"
    right = f"{module}:{app}"
    if _SHAPE.fullmatch(right) is None:
        right = "shop:app"
    return f"Write the module and the name in it, as in: minisession serve {right}"
