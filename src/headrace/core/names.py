"""The names under which another process finds a function or a class; nothing is imported here."""

from __future__ import annotations

import os.path
import sys


def main_module_name() -> str | None:
    """The import name of `__main__`: `app` for `python app.py`, `pkg.mod` for `python -m pkg.mod`.

    Returns:
        None when there is no file to import (an interactive session, `python -c`).
    """
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != "__main__":
        return str(spec.name)
    file = getattr(main, "__file__", None)
    if not file or not os.path.basename(file).endswith(".py"):
        return None
    return module_name_of_file(file)


def module_name_of_file(file: str) -> str:
    """The import name of a script: its path below `sys.path[0]`, or below the current folder, or its stem."""
    path = os.path.splitext(os.path.abspath(file))[0]
    for folder in (sys.path[0] if sys.path else "", ""):
        root = os.path.abspath(folder)
        if path.startswith(root + os.sep):
            parts = path[len(root) + 1 :].split(os.sep)
            if all(part.isidentifier() for part in parts):
                return ".".join(parts)
    return os.path.basename(path)


def type_name(cls: type) -> str:
    """`ValueError`, `decimal.InvalidOperation`, `app.MyError`: how a class is named in what is stored."""
    module = getattr(cls, "__module__", None)
    name = getattr(cls, "__qualname__", None) or "?"
    if not isinstance(module, str) or module == "builtins":
        return str(name)
    if module == "__main__":
        module = main_module_name() or module
    return f"{module}.{name}"


def type_names(cls: type) -> list[str]:
    """The names of a class and of every class it is a kind of, nearest first."""
    return [type_name(base) for base in cls.__mro__ if base is not object]
