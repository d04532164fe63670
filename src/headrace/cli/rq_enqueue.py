"""`headrace rq enqueue`: store one call, with RQ's way to write arguments.

`text` `name=text` are texts; `:json` `name:=json` are JSON; `%literal` `name%=literal` are Python's literals; what begins with `@` is read from that file.
"""

from __future__ import annotations

import json
from ast import literal_eval
from datetime import datetime, timedelta
from typing import Any

import click

from headrace.cli.rq_settings import Setup, shared
from headrace.cli.settings import OK, talk
from headrace.contrib.rq.exceptions import DuplicateJobError, InvalidJobDependency, TimeoutFormatError
from headrace.contrib.rq.job import Retry
from headrace.contrib.rq.utils import get_call_string, parse_timeout

EPILOG = """\b
Examples:
  headrace rq enqueue app.send_mail an@example.com
  headrace rq enqueue app.resize photo.jpg :640 crop:=true -q images --retry-max 3 --retry-interval 10
  headrace rq enqueue app.report "%(2026, 11)" --schedule-in 1h
"""


def add_to(group: click.Group) -> None:
    group.add_command(enqueue)


@click.command("enqueue", epilog=EPILOG)
@click.argument("function")
@click.argument("arguments", nargs=-1, metavar="[ARGUMENT]...")
@shared
@click.option("-q", "--queue", default="default", show_default=True, help="Which queue.")
@click.option("--timeout", help="How long it may run.")
@click.option("--result-ttl", help="How long its result is kept.")
@click.option("--ttl", help="How long it may wait to be run.")
@click.option("--failure-ttl", help="How long it is kept when it fails.")
@click.option("--description", help="What people read.")
@click.option("--depends-on", multiple=True, metavar="ID", help="It waits for this job.")
@click.option("--job-id", help="Its id.")
@click.option("--at-front", is_flag=True, help="Before all others.")
@click.option("--retry-max", type=click.IntRange(0), default=0, help="How often it is tried again.")
@click.option("--retry-interval", multiple=True, type=click.IntRange(0), default=[0], help="Seconds before each.")
@click.option("--schedule-in", metavar="DURATION", help="That much later: 10s, 5m, 2d.")
@click.option("--schedule-at", metavar="TIME", help="Then, in local time: 2026-12-24T20:00:00.")
@click.option("--quiet", is_flag=True, help="Say nothing.")
def enqueue(
    setup: Setup, function: str, arguments: tuple[str, ...], queue: str, retry_max: int, retry_interval: tuple[int, ...],
    schedule_in: str | None, schedule_at: str | None, quiet: bool, at_front: bool, depends_on: tuple[str, ...],
    **options: Any,
) -> int:  # fmt: skip
    """Store a call of a function, by its dotted path. Prints the job's id."""
    args, kwargs = read_arguments(arguments)
    target = setup.queue(queue)
    try:
        when = _when(schedule_in, schedule_at)
        if retry_max:
            options["retry"] = Retry(retry_max, list(retry_interval))
        job = target.create_job(function, tuple(args), kwargs, depends_on=list(depends_on) or None, **options)
        if when is None:
            target.enqueue_job(job, at_front=at_front)
        else:
            job.enqueue_at_front = at_front or None
            target.schedule_job(job, when)
    except (TimeoutFormatError, DuplicateJobError, InvalidJobDependency, ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from error
    if not quiet:
        talk(f"enqueued {get_call_string(function, args, kwargs)} to queue {queue}")
        click.echo(job.id)
    return OK


def _when(schedule_in: str | None, schedule_at: str | None) -> datetime | None:
    if schedule_in is not None and schedule_at is not None:
        raise click.UsageError("--schedule-in and --schedule-at: give one of them")
    if schedule_in is not None:
        return datetime.now() + timedelta(seconds=parse_timeout(schedule_in) or 0)
    return None if schedule_at is None else datetime.strptime(schedule_at, "%Y-%m-%dT%H:%M:%S")


def read_arguments(words: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
    """Positional and named ones."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        name, value = _read_argument(word, len(args) + 1)
        if name is None:
            args.append(value)
        elif name in kwargs:
            raise click.UsageError(f"the argument {name} is given twice")
        else:
            kwargs[name] = value
    return args, kwargs


def _read_argument(word: str, place: int) -> tuple[str | None, Any]:
    name, sign, text = word.partition("=")
    if word[:1] in (":", "%"):
        name, kind, text = "", word[0], word[1:]
    elif sign and name:
        kind = name[-1] if name[-1] in ":%" else ""
        name = name.removesuffix(kind) if kind else name
    else:
        name, kind, text = "", "", word
    if text.startswith("@"):
        try:
            with open(text[1:]) as file:
                text = file.read()
        except OSError as error:
            raise click.FileError(text[1:], error.strerror or "cannot be read") from error
    where = name or f"argument {place}"
    return name or None, _read_value(kind, text, where)


def _read_value(kind: str, text: str, where: str) -> Any:
    try:
        return json.loads(text) if kind == ":" else literal_eval(text) if kind == "%" else text
    except (ValueError, SyntaxError) as error:
        what = "JSON" if kind == ":" else "a literal of Python"
        raise click.UsageError(f"{where} is no {what}: {error}") from error
