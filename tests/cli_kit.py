"""Reading what a command printed."""

from __future__ import annotations

import json
from typing import Any

from click.testing import Result


def lines(result: Result) -> list[list[str]]:
    """The cells of tab-separated output."""
    return [line.split("\t") for line in result.stdout.splitlines()]


def documents(result: Result) -> list[Any]:
    """The documents of NDJSON output."""
    return [json.loads(line) for line in result.stdout.splitlines()]
