"""What a job said, as `headrace job logs` prints it: a line each, or one JSON document each."""

from __future__ import annotations

from collections.abc import Iterable

import click

from headrace.cli.output import instant, print_rows
from headrace.cli.settings import settings, talk
from headrace.engine import kept
from headrace.engine.clients import SyncClient
from headrace.engine.keys import QueueKeys
from headrace.stream import LogLine, entries_through, lines_of
from headrace.worker.joblog import printable

COLUMNS = ("at", "attempt", "text")


def print_log(client: SyncClient, keys: QueueKeys, job_id: str, attempt: int | None, *, is_followed: bool) -> None:
    """What is kept; and, followed, what comes until the job has ended."""
    if is_followed:
        reading = kept.read_along(keys, job_id, keys.lines(job_id), "0", None)
        for entry in entries_through(client, reading, lambda record: None):
            _print(lines_of([entry], attempt))
        return
    found = lines_of(client.run(kept.all_lines(keys, job_id)), attempt)
    _print(found)
    if not found:
        talk("nothing was logged")


def _print(lines: Iterable[LogLine]) -> None:
    for line in lines:
        at = instant(int(line.at.timestamp() * 1000))
        if settings().is_json:
            print_rows([{"at": at, "attempt": line.attempt, "text": line.text}], COLUMNS)
        else:
            click.echo(f"{at}\t{line.attempt}\t{printable(line.text)}")
