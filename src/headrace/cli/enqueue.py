"""`headrace enqueue`: one job from the shell."""

from __future__ import annotations

import datetime
from typing import Any

import click

from headrace import Headrace
from headrace.cli.job import wait_for
from headrace.cli.output import print_fields
from headrace.cli.settings import OK, settings, store_json
from headrace.cli.values import duration_s, instant, parse_arguments
from headrace.engine.call import command as redis_command
from headrace.engine.keys import queue_keys
from headrace.errors import TaskNotRegistered

EPILOG = """\b
Examples:
  headrace enqueue app.resize cat.png width:=400
  headrace enqueue mail.send to=an@example.org --delay 10m --queue low
  headrace enqueue app.report --at 2026-12-31T23:00+07:00
  headrace enqueue app.resize cat.png --wait
"""


@store_json
@click.command(epilog=EPILOG)
@click.argument("task")
@click.argument("words", nargs=-1, metavar="[ARG | NAME=TEXT | NAME:=JSON | :=JSON]...")
@click.option("--queue", "-Q", metavar="NAME", help="Default: the task's own, if -A is given; else `default`.")
@click.option("--delay", type=duration_s, metavar="DURATION", help="Not before 30s, 10m, 2h … from now.")
@click.option("--at", type=instant, metavar="INSTANT", help="Not before this instant.")
@click.option("--priority", type=click.IntRange(-100, 100), help="Higher goes first. Default: 0.")
@click.option("--job-id", metavar="ID", help="An id of your own; refused when it is taken.")
@click.option("--wait", is_flag=True, help="Wait for the end and print the result instead of the id.")
@click.option("--timeout", type=duration_s, metavar="DURATION", help="With --wait: give up after; exit code 124.")
def command(
    task: str,
    words: tuple[str, ...],
    queue: str | None,
    delay: float | None,
    at: datetime.datetime | None,
    priority: int | None,
    job_id: str | None,
    wait: bool,
    timeout: float | None,
) -> int:
    """Enqueue a job of TASK (its name, such as app.resize), and print the job's id.

    With -A the arguments are checked against the task's signature before anything is sent.
    """
    args, kwargs = parse_arguments(words)
    given = {"queue": queue, "delay": delay, "at": at, "priority": priority, "job_id": job_id}
    options: Any = {name: value for name, value in given.items() if value is not None}
    shared = settings()
    client = shared.client()
    client.run(redis_command("PING", decode=bool))
    with Headrace(client.config.url, prefix=client.prefix) as sender:
        app = sender
        if shared.app_path is not None:
            app = shared.app()
            if app.find_task(task) is None:
                known = ", ".join(app.tasks) or "none"
                raise TaskNotRegistered(f"{shared.app_path} has no task {task!r}; its tasks: {known}")
        (job,) = sender.enqueue_many([app.options(**options).call(task, *args, **kwargs)])
    if wait:
        return wait_for(client, queue_keys(job.queue, client.prefix), job.id, timeout)
    if shared.is_json:
        print_fields({"id": job.id, "queue": job.queue, "task": task, "state": job.state.value})
    else:
        click.echo(job.id)
    return OK
