"""`headrace status`: one screen of server, queues, workers and schedules, and what needs attention."""

from __future__ import annotations

from typing import Any

import click

from headrace.cli import queue, schedule, workers
from headrace.cli.check import check_server
from headrace.cli.job import queues_of
from headrace.cli.output import print_fields, print_rows
from headrace.cli.settings import FAILED, OK, settings, store_json
from headrace.engine import admin, schedules
from headrace.engine.admin import QueueCounts, Worker
from headrace.engine.call import command as redis_command
from headrace.engine.clients import SyncClient
from headrace.engine.connect import masked_url
from headrace.engine.schedules import Found
from headrace.errors import ServerDenied
from headrace.schedules import Schedule
from headrace.worker.processes import bytes_text

SCHEDULE_COLUMNS = ("name", "queue", "state", "when", "next", "last")
LATE_S = 60.0
FULL_SHARE = 0.9


@store_json
@click.command(epilog="\b\nExample:\n  headrace status || echo 'look at it'")
def command() -> int:
    """Show server, queues, workers, schedules and what needs attention. Exit code 1 when something does."""
    client = settings().client()
    server = check_server(client)
    counts = [client.run(admin.count_jobs(keys)) for keys in queues_of(client, None)]
    running = client.run(admin.list_workers(client.prefix))
    timed = client.run(schedules.list_schedules(client.prefix))
    used, most = read_memory(client)
    attention = [row["message"] for row in server if row["verdict"] == "wrong"]
    if most and used > FULL_SHARE * most:
        attention.append(f"the server has used {used / most:.0%} of its memory: raise maxmemory, or keep less")
    attention += needs_attention(counts, running) + late_schedules(timed)
    shown = {
        "url": masked_url(client.config.url),
        "server": server[0]["message"],
        "memory_bytes": used,
        "memory_most_bytes": most,
        "queues": [queue.summary(each) for each in counts],
        "workers": [workers.summary(each) for each in running],
        "schedules": [schedule.summary(Schedule(each)) for each in timed],
        "attention": attention,
    }
    if settings().is_json:
        print_fields(shown)
    else:
        _print_screen(shown)
    return FAILED if attention else OK


def _print_screen(shown: dict[str, Any]) -> None:
    most = f" of {bytes_text(shown['memory_most_bytes'])}" if shown["memory_most_bytes"] else ""
    memory = f"  memory {bytes_text(shown['memory_bytes'])}{most}" if shown["memory_bytes"] else ""
    click.echo(f"{shown['server']}  {shown['url']}{memory}")
    print_rows(shown["queues"], queue.COLUMNS, empty="no queue yet")
    print_rows(shown["workers"], workers.COLUMNS, empty="no worker is running")
    if shown["schedules"]:
        print_rows(shown["schedules"], SCHEDULE_COLUMNS)
    for text in shown["attention"]:
        click.echo(f"! {text}")


def read_memory(client: SyncClient) -> tuple[int, int]:
    """Bytes used, and the most there may be (0: no bound); of a cluster's nodes, and where it may not be asked, nothing is told."""
    if client.is_cluster:
        return 0, 0
    try:
        found = client.run(redis_command("INFO", "memory", decode=_fields))
    except ServerDenied:
        return 0, 0
    return int(found.get("used_memory", 0)), int(found.get("maxmemory", 0))


def _fields(reply: Any) -> dict[str, str]:
    lines = reply.decode().splitlines() if isinstance(reply, bytes) else []
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}


def late_schedules(timed: list[Found]) -> list[str]:
    """Ticks that are due, and have made no job."""
    told: list[str] = []
    for each in timed:
        late_s = (each.server_ms - each.entry.next_ms) / 1000
        if each.state == "active" and each.entry.next_ms and not each.entry.waiting_ms and late_s > LATE_S:
            told.append(f"schedule {each.name} is {late_s:.0f} s late: no worker of queue {each.queue.name} fires it")
    return told


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
