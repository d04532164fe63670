"""`headrace job`: list, show, logs, retry, run, cancel, delete, clone and wait."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import click
import msgspec

from headrace import wire
from headrace.cli.logs import print_log
from headrace.cli.output import has_rich_terminal, instant, print_fields, print_rows
from headrace.cli.progress import shown_progress, tracked
from headrace.cli.settings import (
    FAILED,
    NOT_FOUND,
    OK,
    REFUSED,
    TIMED_OUT,
    confirm,
    not_found,
    settings,
    subcommand,
    talk,
)
from headrace.cli.values import duration_s, parse_arguments
from headrace.core.failures import error_of
from headrace.core.filters import HELP, Filter, parse_filter
from headrace.core.record import Record, State, decode
from headrace.core.timeline import timeline
from headrace.engine import admin, ops
from headrace.engine.admin import Row
from headrace.engine.bulk import ACTS, Action
from headrace.engine.clients import SyncClient
from headrace.engine.clone import clone as make_clone
from headrace.engine.keys import QueueKeys, check_job_id, queue_keys
from headrace.engine.ops import Look
from headrace.engine.search import find_jobs
from headrace.errors import JobNotFound
from headrace.job import until_ended, wait_through
from headrace.progress import Progress

COLUMNS = ("id", "queue", "task", "state", "attempt", "created_at", "error")
STATES = {**{state.value: state for state in State}, "dead": State.FAILED}


def queues_of(client: SyncClient, name: str | None) -> list[QueueKeys]:
    names = [name] if name else client.run(admin.queue_names(client.prefix))
    return [queue_keys(each, client.prefix) for each in names]


def find_job(client: SyncClient, job_id: str, queue: str | None) -> tuple[QueueKeys, Look]:
    """Look for a job in its queue, or in all of them."""
    check_job_id(job_id)
    for keys in queues_of(client, queue):
        look = client.run(ops.look(keys, job_id))
        if look is not None:
            return keys, look
    where = f"queue {queue}" if queue else "any queue"
    not_found(f"no job {job_id} in {where}: it never was, was deleted, or is no longer kept")


def row(found: Row) -> dict[str, Any]:
    """A job's row: stable keys."""
    record = found.record
    kind, message = error_of(record) if found.state is State.FAILED or record.errors else ("", "")
    return {
        "id": found.id,
        "queue": found.queue,
        "task": record.task,
        "state": found.state.value,
        "attempt": record.attempt,
        "priority": record.priority,
        "created_at": instant(record.created_at_ms),
        "started_at": instant(record.started_at_ms),
        "ended_at": instant(record.ended_at_ms),
        "due_at": instant(found.due_at_ms),
        "error": f"{kind}: {message}".splitlines()[0] if kind else None,
        "session": found.session,
    }


def details(queue: str, job_id: str, look: Look) -> dict[str, Any]:
    """Everything about one job."""
    record = decode(look.record)
    shown = row(Row(queue, job_id, look.state, record, look.due_ms, look.session))
    shown["args"], shown["kwargs"] = wire.decode_call(record.payload, None)
    shown["result"] = None if record.result is None else msgspec.msgpack.decode(record.result)
    shown["note"], shown["reason"], shown["crashes"] = (
        record.note,
        record.reason,
        look.crashes,
    )
    progress = Progress.decode(look.progress)
    shown["progress"] = progress and {
        "fraction": progress.fraction,
        "text": progress.text,
        "at": instant(round(progress.at.timestamp() * 1000)),
        "done": progress.done,
        "total": progress.total,
    }
    shown["expires_at"] = instant(record.expires_at_ms)
    shown["options"] = msgspec.to_builtins(record.options) if record.options else {}
    shown["errors"] = [
        {
            "attempt": error.attempt,
            "type": error.type,
            "message": error.message,
            "at": instant(error.at_ms),
            "traceback": error.traceback,
        }
        for error in record.errors or []
    ]
    steps = timeline(record, look.state, look.due_ms)
    before_ms = [steps[0].at_ms, *(step.at_ms for step in steps)]
    shown["timeline"] = [
        {"what": step.what, "at": instant(step.at_ms), "after_s": (step.at_ms - then_ms) / 1000, "text": step.text}
        for step, then_ms in zip(steps, before_ms, strict=False)
    ]
    return shown


def timeline_lines(steps: list[dict[str, Any]]) -> str:
    """A step a line, with the time since the one before."""
    lines = [f"{step['at']}  {step['after_s']:>+10.3f} s  {step['what']}" for step in steps]
    words = [" ".join(step["text"].split()) for step in steps]
    return "\n".join(f"{line}: {text[:200]}" if text else line for line, text in zip(lines, words, strict=True))


def read_filter(text: str | None, **beside: Any) -> Filter:
    """`--filter`, and what other options say; `since` counts from now."""
    return parse_filter(text, now_ms=time.time_ns() // 1_000_000, **beside)


def search(client: SyncClient, queues: Iterable[QueueKeys], wanted: Filter) -> Iterator[Row]:
    """All jobs that match, queue by queue, read page by page."""
    places, cursor = list(queues), ""
    while True:
        found = client.run(find_jobs(places, wanted, cursor=cursor, limit=admin.JOBS_A_CALL))
        yield from found.rows
        cursor = found.cursor
        if not cursor:
            break


_queue = click.option("--queue", "-Q", metavar="NAME", help="Look in this queue only.")
_filter = click.option("--filter", "filter_text", metavar="FILTER", help=HELP)
_yes = click.option("--yes", is_flag=True, help="Do not ask.")
_dry_run = click.option("--dry-run", is_flag=True, help="Only list the ids it would act on.")


@click.group(epilog="\b\nExamples:\n  headrace job ls --state failed\n  headrace job show ID\n  headrace job wait ID")
def command() -> None:
    """List, show, retry, run, cancel, delete, clone and wait for jobs, and print what they say."""


@subcommand(
    command,
    "ls",
    epilog="\b\nExample:\n  headrace job ls --filter 'task:mail.send state:dead' --limit 20",
)
@click.option(
    "--state",
    type=click.Choice(list(STATES)),
    multiple=True,
    help="Only these; default: all.",
)
@click.option("--task", metavar="NAME", help="Only jobs of this task.")
@click.option(
    "--since",
    type=duration_s,
    metavar="DURATION",
    help="Only jobs created in the last 10m, 2h, 3d …",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=100,
    show_default=True,
    help="Most jobs.",
)
@_queue
@_filter
def list_jobs(
    state: tuple[str, ...],
    task: str | None,
    since: float | None,
    limit: int,
    queue: str | None,
    filter_text: str | None,
) -> int:
    """List jobs: running ones first, then in the order in which they would run, then the ended ones.

    In a pipe: id, queue, task, state, attempt, created, error.
    """
    client = settings().client()
    wanted = read_filter(filter_text, states={STATES[name] for name in state}, task=task, queue=queue)
    since_ms = None if since is None else int((time.time() - since) * 1000)
    rows: list[dict[str, Any]] = []
    is_more = False
    for found in search(client, queues_of(client, wanted.queue), wanted):
        if since_ms is not None and found.record.created_at_ms < since_ms:
            continue
        if len(rows) == limit:
            is_more = True
            break
        rows.append(row(found))
    print_rows(rows, COLUMNS, empty="no such job")
    if is_more:
        talk(f"there are more than {limit}: raise --limit, or narrow the filter")
    return OK


@subcommand(
    command,
    "show",
    epilog="\b\nExample:\n  headrace job show 1k83ra38f9clh3epqg26 --json",
)
@click.argument("job_id")
@_queue
def show(job_id: str, queue: str | None) -> int:
    """Show one job: arguments, state, result, errors, and what happened when."""
    keys, look = find_job(settings().client(), job_id, queue)
    shown = details(keys.name, job_id, look)
    if has_rich_terminal() and not settings().is_json:
        shown["timeline"] = timeline_lines(shown["timeline"])
    print_fields(shown)
    return OK


@subcommand(command, "logs", epilog="\b\nExamples:\n  headrace job logs ID\n  headrace job logs ID --follow")
@click.argument("job_id")
@_queue
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Of this attempt only.")
@click.option("--follow", "-f", is_flag=True, help="Go on, with what it says until it has ended.")
def logs(job_id: str, queue: str | None, attempt: int | None, follow: bool) -> int:
    """Print what a job said: time, attempt, line."""
    client = settings().client()
    keys, _ = find_job(client, job_id, queue)
    print_log(client, keys, job_id, attempt, is_followed=follow)
    return OK


def _act_on(
    action: Action, job_ids: tuple[str, ...], queue: str | None, filter_text: str | None, *, yes: bool, dry_run: bool
) -> int:
    """Do one thing to jobs named by id or filter; the code tells the worst that happened."""
    client = settings().client()
    act, done, states = ACTS[action]
    if bool(job_ids) == bool(filter_text):
        raise click.UsageError("name jobs by id, or by --filter")
    targets: list[tuple[QueueKeys, str]]
    if filter_text:
        wanted = read_filter(filter_text, queue=queue, default_states=states)
        targets = [
            (queue_keys(found.queue, client.prefix), found.id)
            for found in search(client, queues_of(client, wanted.queue), wanted)
        ]
    else:
        targets = [(find_job(client, job_id, queue)[0], job_id) for job_id in job_ids]
    if dry_run:
        for _, job_id in targets:
            click.echo(job_id)
        talk(f"{len(targets)} jobs")
        return OK
    if targets and (filter_text or action is Action.DELETE):
        confirm(_ASKS[action].format(jobs=f"{len(targets):,} job" + "s" * (len(targets) != 1)), yes=yes)
    code = OK
    for keys, job_id in tracked(targets, action):
        try:
            answer = client.run(act(keys, job_id))
        except JobNotFound as error:
            talk(str(error), is_error=True)
            code = NOT_FOUND
            continue
        if answer in done:
            click.echo(job_id)
        else:
            talk(f"job {job_id}: {_WHY_NOT[action, answer]}", is_error=True)
            code = code or REFUSED
        if answer == "asked":
            talk(f"job {job_id} runs; its worker was told to stop it")
    return code


_ASKS = {
    Action.RETRY: "Retry {jobs}?", Action.RUN: "Run {jobs} now?", Action.CANCEL: "Cancel {jobs}?",
    Action.DELETE: "Delete {jobs} for good?",
}  # fmt: skip
_WHY_NOT = {
    (Action.RETRY, "live"): "it has not ended, so there is nothing to retry",
    (Action.RUN, "live"): "it does not wait for a time: headrace why tells what it waits for",
    (Action.RUN, "ended"): "it has ended: headrace job retry runs it again",
    (Action.CANCEL, "ended"): "it has ended already",
    (Action.DELETE, "running"): "it runs; cancel it first",
}


@subcommand(
    command,
    "retry",
    epilog="\b\nExamples:\n  headrace job retry ID\n  headrace job retry --filter 'state:dead error:Timeout since:2h'",
)
@click.argument("job_ids", nargs=-1, metavar="[JOB_ID]...")
@_queue
@_filter
@_yes
@_dry_run
def retry(job_ids: tuple[str, ...], queue: str | None, filter_text: str | None, yes: bool, dry_run: bool) -> int:
    """Put ended jobs back in their queue, attempts counted from zero. Prints the ids."""
    return _act_on(Action.RETRY, job_ids, queue, filter_text, yes=yes, dry_run=dry_run)


@subcommand(command, "run", epilog="\b\nExamples:\n  headrace job run ID\n  headrace job run --filter 'state:retrying'")
@click.argument("job_ids", nargs=-1, metavar="[JOB_ID]...")
@_queue
@_filter
@_yes
@_dry_run
def run(job_ids: tuple[str, ...], queue: str | None, filter_text: str | None, yes: bool, dry_run: bool) -> int:
    """Put jobs that are scheduled, or that run again later, first in line. Prints the ids."""
    return _act_on(Action.RUN, job_ids, queue, filter_text, yes=yes, dry_run=dry_run)


@subcommand(command, "cancel", epilog="\b\nExample:\n  headrace job cancel ID")
@click.argument("job_ids", nargs=-1, metavar="[JOB_ID]...")
@_queue
@_filter
@_yes
@_dry_run
def cancel(job_ids: tuple[str, ...], queue: str | None, filter_text: str | None, yes: bool, dry_run: bool) -> int:
    """Cancel jobs: a waiting one ends at once, a running one is asked to stop. Prints the ids."""
    return _act_on(Action.CANCEL, job_ids, queue, filter_text, yes=yes, dry_run=dry_run)


@subcommand(command, "delete", epilog="\b\nExample:\n  headrace job delete ID --yes")
@click.argument("job_ids", nargs=-1, metavar="[JOB_ID]...")
@_queue
@_filter
@_yes
@_dry_run
def delete(job_ids: tuple[str, ...], queue: str | None, filter_text: str | None, yes: bool, dry_run: bool) -> int:
    """Delete jobs with their records; running ones are refused. Prints the ids."""
    return _act_on(Action.DELETE, job_ids, queue, filter_text, yes=yes, dry_run=dry_run)


@subcommand(
    command,
    "clone",
    epilog="\b\nExamples:\n  headrace job clone ID\n  headrace job clone ID width:=800 --queue low --delay 10m",
)
@click.argument("job_id")
@click.argument("words", nargs=-1, metavar="[ARG | NAME=TEXT | NAME:=JSON | :=JSON]...")
@_queue
@click.option("--to", metavar="QUEUE", help="Its queue; default: that of the other job.")
@click.option("--delay", type=duration_s, metavar="DURATION", help="Not before 30s, 10m, 2h … from now.")
@click.option("--priority", type=click.IntRange(-100, 100), help="Default: that of the other job.")
def clone(
    job_id: str, words: tuple[str, ...], queue: str | None, to: str | None, delay: float | None, priority: int | None
) -> int:
    """Enqueue a job like another one, and print its id.

    Named arguments replace or join those of the other job; positional ones replace all its positional ones.
    """
    client = settings().client()
    keys, look = find_job(client, job_id, queue)
    record, payload = decode(look.record), None
    if words:
        args, kwargs = parse_arguments(words)
        old_args, old_kwargs = wire.decode_call(record.payload, None)
        payload = wire.encode_call(tuple(args or old_args), {**old_kwargs, **kwargs})
    now_ms = time.time_ns() // 1_000_000
    delay_ms = round((delay or 0) * 1000)
    new = make_clone(record, now_ms=now_ms, payload=payload, priority=priority, delay_ms=delay_ms)
    name = queue_keys(to or keys.name, client.prefix).name
    client.run(ops.announce_queues(client.prefix, [name]))
    client.enqueue(name, [new])
    if settings().is_json:
        print_fields({"id": new.id, "queue": name, "task": record.task, "clone_of": job_id})
    else:
        click.echo(new.id)
    return OK


@subcommand(command, "wait", epilog="\b\nExample:\n  headrace job wait ID --timeout 30s")
@click.argument("job_id")
@_queue
@click.option(
    "--timeout",
    type=duration_s,
    metavar="DURATION",
    help="Give up after 30s, 10m …: exit code 124.",
)
@click.option("--progress", "is_shown", is_flag=True, help="Show how far it is, on stderr.")
def wait(job_id: str, queue: str | None, timeout: float | None, is_shown: bool) -> int:
    """Wait until a job has ended, and print its result. Exit code 1 when it did not succeed."""
    client = settings().client()
    keys, _ = find_job(client, job_id, queue)
    return wait_for(client, keys, job_id, timeout, shown_progress(client, keys, job_id) if is_shown else None)


def wait_for(
    client: SyncClient,
    keys: QueueKeys,
    job_id: str,
    timeout_s: float | None,
    meanwhile: AbstractContextManager[None] | None = None,
) -> int:
    """Wait for a job's end and print its result (stdout) or what became of it (stderr); `meanwhile` is left before that."""
    with meanwhile or nullcontext():
        found = wait_through(client, until_ended(keys, job_id, timeout_s))
    if found is None:
        talk(f"job {job_id} has not ended in {timeout_s:g} s; it goes on", is_error=True)
        return TIMED_OUT
    if not found:
        not_found(f"job {job_id} was deleted")
    return _print_end(job_id, decode(found))


def _print_end(job_id: str, record: Record) -> int:
    state = admin.ended_state(record)
    if state is State.SUCCEEDED:
        if record.result is not None:
            print_result(msgspec.msgpack.decode(record.result))
        elif record.note:
            talk(f"job {job_id} succeeded; its result was not kept: {record.note}")
        return OK
    kind, message = error_of(record)
    told = f": {kind}: {message}" if kind else ""
    talk(
        f"job {job_id} {'has ' if state is not State.CANCELLED else 'was '}{state.value}{told}",
        is_error=True,
    )
    return FAILED


def print_result(value: Any) -> None:
    """A job's result: text as it is, all else as JSON."""
    if isinstance(value, str) and not settings().is_json:
        click.echo(value)
    else:
        click.echo(msgspec.json.encode(value).decode())
