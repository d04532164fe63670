"""The layers, the public names and the scripts' headers."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis

import headrace
from headrace.engine.call import script
from headrace.engine.keys import QUEUE_KEYS

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.stem for path in (ROOT / "src/headrace/engine/lua").glob("*.lua"))


def test_the_layers_hold() -> None:
    """What is above uses what is below, never the other way."""
    done = subprocess.run([str(Path(sys.executable).parent / "lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_public_names_are_sorted_and_exist() -> None:
    assert sorted(headrace.__all__) == list(headrace.__all__)
    assert [] == [name for name in headrace.__all__ if not hasattr(headrace, name)]


def test_a_public_name_is_what_the_type_checkers_see() -> None:
    """The imports for type checkers name the same objects as those that are made at first use."""
    tree = ast.parse(Path(headrace.__file__).read_text("utf8"))
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: str(node.module) for node in imports for alias in node.names}
    assert sorted([*homes, "__version__"]) == list(headrace.__all__)
    for name, home in homes.items():
        assert getattr(importlib.import_module(home), name) is getattr(headrace, name)


def test_the_package_and_its_command_line_start_without_redis() -> None:
    """Help and completion come at once; redis-py is loaded with the first name that needs it."""
    code = "import sys, headrace, headrace.cli.main; print(*(name for name in ('redis', 'msgspec') if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "\n", done


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_what_it_does_and_loads(name: str, url: str) -> None:
    """Its head: flags, its own name, keys that exist. All but those that enqueue work on a full server."""
    found = script(name)
    first, second = found.source.decode().split("\n")[:2]
    assert first == ("#!lua" if name in ("enqueue", "fire") else "#!lua flags=allow-oom")
    assert re.match(rf"-- {name}: \w", second), second
    assert set(found.keys) <= {*QUEUE_KEYS, "held", "adopted"}
    client = redis.Redis.from_url(url)
    assert found.sha == client.script_load(found.source.decode()).encode()
    client.close()
