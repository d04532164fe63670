"""How data leave on stdout: a table for a terminal, tab-separated in a pipe, JSON when asked for."""

from __future__ import annotations

import datetime
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from headrace.cli.settings import settings


def has_rich_terminal() -> bool:
    """Whether stdout shows tables and colours: a terminal, or FORCE_COLOR."""
    wish = settings().color
    if wish is not None and wish != "auto":
        return wish == "always"
    return sys.stdout.isatty() or bool(os.environ.get("FORCE_COLOR"))


def instant(at_ms: int | None) -> str | None:
    """RFC 3339 in UTC, or None for none."""
    if not at_ms:
        return None
    text = datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, empty: str = "none") -> None:
    """A list. `columns` are those of the table and of the tab-separated form; JSON has every key."""
    if settings().is_json:
        for row in rows:
            click.echo(_json(row))
        return
    if not has_rich_terminal():
        for row in rows:
            click.echo("\t".join(_cell(row.get(name), is_piped=True) for name in columns))
        return
    lines = [[_cell(row.get(name), is_piped=False) for name in columns] for row in rows]
    if not lines:
        click.echo(empty, err=True)
        return
    _table(columns, lines)


def print_fields(thing: Mapping[str, Any]) -> None:
    """One thing: a line a field, or one JSON document."""
    if settings().is_json:
        click.echo(_json(thing))
        return
    width = max(len(name) for name in thing) + 2
    for name, value in thing.items():
        if not has_rich_terminal():
            click.echo(f"{name}\t{_cell(value, is_piped=True)}")
        elif value not in (None, [], {}, ""):
            text = _cell(value, is_piped=False)
            click.echo(f"{name:<{width}}" + text.replace("\n", "\n" + " " * width))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf8", "backslashreplace")
    return str(value)


def _cell(value: Any, *, is_piped: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping | list | tuple):
        value = ", ".join(map(str, value)) if _is_words(value) else _json(value)
    text = str(value)
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n") if is_piped else text


def _is_words(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        _plain_table(columns, lines)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for n, name in enumerate(columns):
        is_number = all(line[n].replace(".", "", 1).isdigit() for line in lines if line[n])
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for line in lines:
        table.add_row(*(text.replace("[", "\\[") for text in line))
    Console(no_color=settings().color == "never" or None).print(table)


def _plain_table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    widths = [max(len(name), *(len(line[n]) for line in lines)) for n, name in enumerate(columns)]
    for line in [list(columns), *lines]:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
