"""`headrace status`: one screen of server, queues and workers, and what needs attention."""

from __future__ import annotations

from typing import Any

import click

from headrace.cli import queue, workers
from headrace.cli.check import check_server
from headrace.cli.job import queues_of
from headrace.cli.output import print_fields, print_rows
from headrace.cli.settings import FAILED, OK, settings, store_json
from headrace.engine import admin
from headrace.engine.admin import QueueCounts, Worker
from headrace.engine.connect import masked_url


@store_json
@click.command(epilog="\b\nExample:\n  headrace status || echo 'look at it'")
def command() -> int:
    """Show server, queues, workers and what needs attention. Exit code 1 when something does."""
    client = settings().client()
    server = check_server(client)
    counts = [client.run(admin.count_jobs(keys)) for keys in queues_of(client, None)]
    running = client.run(admin.list_workers(client.prefix))
    attention = [row["message"] for row in server if row["verdict"] == "wrong"] + needs_attention(counts, running)
    shown = {
        "url": masked_url(client.config.url),
        "server": server[0]["message"],
        "queues": [queue.summary(each) for each in counts],
        "workers": [workers.summary(each) for each in running],
        "attention": attention,
    }
    if settings().is_json:
        print_fields(shown)
    else:
        _print_screen(shown)
    return FAILED if attention else OK


def _print_screen(shown: dict[str, Any]) -> None:
    click.echo(f"{shown['server']}  {shown['url']}")
    print_rows(shown["queues"], queue.COLUMNS, empty="no queue yet")
    print_rows(shown["workers"], workers.COLUMNS, empty="no worker is running")
    for text in shown["attention"]:
        click.echo(f"! {text}")


def needs_attention(counts: list[QueueCounts], running: list[Worker]) -> list[str]:
    """What an operator should look at, one sentence each."""
    told: list[str] = []
    for each in counts:
        if each.paused is not None:
            told.append(f"queue {each.name} is paused ({each.paused}): headrace queue resume {each.name}")
        if each.suspects:
            told.append(f"queue {each.name} has {each.suspects} jobs that may have killed their worker")
        if each.overdue_sessions:
            told.append(f"queue {each.name} holds jobs of {each.overdue_sessions} dead consumers, not yet swept")
        if each.dead:
            told.append(f"queue {each.name} keeps {each.dead} failed jobs: headrace dead ls")
        served = any(each.name in worker.info.get("queues", ()) for worker in running)
        if each.queued and not served:
            told.append(f"queue {each.name} has {each.queued} jobs waiting, and no worker: headrace worker {each.name}")
    return told
