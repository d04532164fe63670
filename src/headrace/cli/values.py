"""What people type as values: durations, sizes, instants, `k=v` and `k:=json` arguments."""

from __future__ import annotations

import datetime
import json
import re
from typing import Any

import click

from headrace.core.durations import seconds_in
from headrace.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_NAMED = re.compile(r"([A-Za-z_]\w*)(:?=)(.*)", re.DOTALL)


def duration_s(text: str) -> float:
    """Seconds from `10`, `1.5s`, `10m`, `2h`, `1d`, `1h30m`."""
    try:
        return seconds_in(text)
    except UsageError as error:
        raise click.BadParameter(str(error)) from None


def size_bytes(text: str) -> int:
    """Bytes from `500M`, `2G`, `1048576`."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise click.BadParameter(f"{text!r} is no size: write 500M, 2G or bytes")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))


def instant(text: str) -> datetime.datetime:
    """A date and time with its zone; without one it is local time."""
    try:
        return datetime.datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no instant: write 2026-01-31T08:00+07:00 or 2026-01-31T01:00:00Z"
        ) from None


def parse_arguments(words: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
    """Positional and named arguments of a task: `x` is text, `k=v` named text, `k:=json` and `:=json` are JSON."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        found = _NAMED.fullmatch(word)
        if word.startswith(":="):
            args.append(_read_json(word, word[2:]))
        elif found is None:
            if kwargs:
                raise click.UsageError(f"positional argument {word!r} after named ones")
            args.append(word)
        elif found[1] in kwargs:
            raise click.UsageError(f"argument {found[1]!r} is given twice")
        else:
            kwargs[found[1]] = _read_json(word, found[3]) if found[2] == ":=" else found[3]
    return args, kwargs


def _read_json(word: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise click.UsageError(f"{word!r}: what follows := is no JSON ({error.msg}); use = for text") from None
