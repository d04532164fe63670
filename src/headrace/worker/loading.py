"""Find the user's `Headrace` object: by "module:attribute", "module", or "path/app.py[:attribute]".

It imports the user's code: only the spawner, spawned children and the command line call it, never the supervisor.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from headrace.app import Headrace
from headrace.errors import AppNotFound


def load_app(target: str) -> Headrace:
    """Import the module that `target` names, with the working directory on the path, and return its app.

    Raises:
        AppNotFound: no module, no app in it, or two; or the module failed to import (with its short traceback).
    """
    place, _, attribute = target.partition(":")
    if not place:
        raise AppNotFound(f"{target!r} names no app: expected module:attribute, module, or path/app.py")
    module = _import_file(place) if place.endswith(".py") or os.sep in place else _import_module(place)
    return _named(module, place, attribute) if attribute else _only(module, place)


def _import_module(name: str) -> ModuleType:
    _put_on_path(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            looked = ", ".join(path or "." for path in sys.path[:3])
            raise AppNotFound(f"no module {name!r}; looked in {looked} and the installed packages") from None
        raise AppNotFound(_import_failure(name, error)) from error
    except (Exception, SystemExit) as error:
        raise AppNotFound(_import_failure(name, error)) from error


def _import_file(place: str) -> ModuleType:
    path = Path(place).resolve()
    if not path.is_file():
        raise AppNotFound(f"no file {place!r} in {Path.cwd()}")
    folder = path.parent
    parts = [path.stem]
    while (folder / "__init__.py").is_file():  # a module of a package is imported under its full name
        parts.insert(0, folder.name)
        folder = folder.parent
    _put_on_path(folder)
    name = ".".join(parts)
    module = _import_module(name)
    found = getattr(module, "__file__", None)
    if found is None or Path(found).resolve() != path:
        raise AppNotFound(f"{place} would be imported as {name!r}, and that is {found or 'built in'}: rename the file")
    return module


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _named(module: ModuleType, place: str, attribute: str) -> Headrace:
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            others = ", ".join(_apps(module)) or "none"
            raise AppNotFound(f"{place} has no {attribute!r}; Headrace objects in it: {others}")
        found = getattr(found, part)
    if not isinstance(found, Headrace):
        raise AppNotFound(f"{place}:{attribute} is no Headrace object but {type(found).__name__}")
    return found


def _only(module: ModuleType, place: str) -> Headrace:
    apps = _apps(module)
    if not apps:
        raise AppNotFound(f"{place} has no Headrace object at its top level: add app = Headrace(), or name another")
    if len({id(app) for app in apps.values()}) > 1 and "app" not in apps:
        choices = " or ".join(f"{place}:{name}" for name in apps)
        raise AppNotFound(f"{place} has more than one Headrace object: say which, {choices}")
    return apps.get("app") or next(iter(apps.values()))


def _apps(module: ModuleType) -> dict[str, Headrace]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Headrace)}


def _import_failure(name: str, error: BaseException) -> str:
    """The error with the lines of the traceback that are the user's: those after the import machinery."""
    every = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in every if "importlib" not in frame.filename and frame.filename != __file__]
    lines = traceback.format_list(frames[-5:]) + traceback.format_exception_only(error)
    return f"{name} cannot be imported:\n{''.join(lines).rstrip()}"


def use_server(app: Headrace, url: str | None, prefix: str | None, allow: list[str]) -> None:
    """Point an app at another server, prefix or more allowed modules, as a command line says. Before its first use."""
    if url is not None:
        app._url = url
    if prefix is not None:
        app._prefix = prefix
    app._config = app._client = app._aclient = None
    app.allow = (*app.allow, *(module for module in allow if module not in app.allow))
