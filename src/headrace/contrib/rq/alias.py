"""`import rq` means `headrace.contrib.rq`, for packages that were written for RQ: django-rq, rq-dashboard and others.

A process that asks for it hands it on to those that it starts, by $HEADRACE_AS_RQ: the jobs of such a package import `rq`, too.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

VARIABLE = "HEADRACE_AS_RQ"
_OURS = "headrace.contrib.rq"


def install_as_rq() -> None:
    """From here on `import rq`, `from rq.job import Job` and so on give the layer's modules, in this process and in its workers'.

    Call it before anything imports `rq`. An RQ that is installed is not loaded.

    Raises:
        ImportError: RQ itself has been imported already.
    """
    there = sys.modules.get("rq")
    if there is not None and there.__name__ != _OURS:
        raise ImportError("install_as_rq() comes too late: rq has been imported; call it first of all")
    os.environ[VARIABLE] = "1"
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def is_wanted() -> bool:
    """Whether the process that started this one has called `install_as_rq()`."""
    return os.environ.get(VARIABLE) == "1"


class _Finder(MetaPathFinder):
    """Finds `rq.X` as `headrace.contrib.rq.X`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "rq" and not fullname.startswith("rq."):
            return None
        ours = _OURS + fullname.removeprefix("rq")
        try:
            found = importlib.util.find_spec(ours)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise ModuleNotFoundError(
                f"headrace.contrib.rq has no {fullname}: see docs/howto/from-rq.md", name=fullname
            )
        return ModuleSpec(fullname, _Same(ours), is_package=found.submodule_search_locations is not None)


class _Same(Loader):
    """Gives a module that is there already, under another name; it stays one module."""

    def __init__(self, ours: str) -> None:
        self._ours = ours
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._ours)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # importlib has just given it that of its other name
