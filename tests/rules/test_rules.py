"""The layers, the public names and the scripts' headers."""

from __future__ import annotations

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


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_what_it_does_and_loads(name: str, url: str) -> None:
    """Its head: flags, its own name, keys that exist. All but enqueue work on a full server."""
    found = script(name)
    first, second = found.source.decode().split("\n")[:2]
    assert first == ("#!lua" if name == "enqueue" else "#!lua flags=allow-oom")
    assert re.match(rf"-- {name}: \w", second), second
    assert set(found.keys) <= {*QUEUE_KEYS, "held", "adopted"}
    client = redis.Redis.from_url(url)
    assert found.sha == client.script_load(found.source.decode()).encode()
    client.close()
