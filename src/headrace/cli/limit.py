"""`headrace limit`: list, set, reset and hold limits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from headrace.cli.output import instant, print_rows
from headrace.cli.queue import known_queue
from headrace.cli.settings import OK, settings, subcommand, talk
from headrace.cli.values import duration_s
from headrace.core.ties import Limit, check_name
from headrace.core.ties import rule as limit_rule
from headrace.engine import admin, ops
from headrace.engine.admin import LimitState
from headrace.engine.keys import queue_keys
from headrace.errors import UsageError

COLUMNS = ("queue", "limit", "rule", "running", "parked", "opens_at", "held_until")
_queue = click.option("--queue", "-Q", required=True, metavar="QUEUE", help="A limit counts within one queue.")


def row(state: LimitState) -> dict[str, Any]:
    """A limit's row: stable keys."""
    return {
        "queue": state.queue,
        "limit": state.name,
        "rule": None if state.rule is None else rule_text(state.rule),
        "running": state.running,
        "parked": state.parked,
        "opens_at": instant(state.opens_ms or None),
        "held_until": instant(state.held_until_ms),
    }


def rule_text(rule: dict[str, Any]) -> str:
    """What was set, in words: `100/60s burst 5, 3 at once`."""
    parts = []
    if "r" in rule:
        burst = f" burst {rule['b']}" if rule.get("b", 1) > 1 else ""
        parts.append(f"{rule['r']:g}/{rule['p'] / 1000:g}s{burst}")
    if "c" in rule:
        parts.append(f"{rule['c']} at once")
    return ", ".join(parts)


@click.group(epilog="\b\nExamples:\n  headrace limit ls\n  headrace limit set stripe -Q mail --rate 50/min")
def command() -> None:
    """Limits: how many jobs may start in a time, or run at once. What is set here holds, whatever the jobs say."""


@subcommand(command, "ls", epilog="\b\nExample:\n  headrace limit ls --json | jq .parked")
@click.option("--queue", "-Q", metavar="QUEUE", help="Of this queue only.")
def list_limits(queue: str | None) -> int:
    """List the limits that are in use, hold jobs back, are held themselves, or were changed.

    In a pipe: queue, limit, rule that was set, running, parked, opens at, held until.
    """
    client = settings().client()
    names = [queue] if queue else client.run(admin.queue_names(client.prefix))
    states = [state for name in names for state in client.run(admin.list_limits(queue_keys(name, client.prefix)))]
    print_rows([row(state) for state in states], COLUMNS, empty="no limit is in use")
    return OK


@subcommand(
    command,
    "set",
    epilog="\b\nExample:\n  headrace limit set 'stripe:{account}' -Q payments --rate 50/min --burst 5",
)
@click.argument("name")
@_queue
@click.option("--rate", metavar="RATE", help="100/min, 5/s, 10/30s: evenly spread.")
@click.option("--burst", type=int, default=1, show_default=True, help="How many of the rate may come at once.")
@click.option("--concurrency", type=int, metavar="N", help="How many run at once.")
def set_limit(name: str, queue: str, rate: str | None, burst: int, concurrency: int | None) -> int:
    """Have a limit hold at once, whatever its jobs say. NAME: one limit, or as it is declared, for all of them."""
    try:
        Limit(name, rate=rate, concurrency=concurrency, burst=burst)
    except UsageError as error:
        raise click.UsageError(str(error)) from None
    client = settings().client()
    new = limit_rule(rate, concurrency, burst)
    client.run(ops.set_limit(known_queue(client, queue), name, new))
    talk(f"limit {name} of queue {queue}: {rule_text(new)}")
    return OK


@subcommand(command, "reset", epilog="\b\nExample:\n  headrace limit reset stripe -Q payments")
@click.argument("name")
@_queue
def reset(name: str, queue: str) -> int:
    """Let the jobs say again what holds."""
    client = settings().client()
    client.run(ops.set_limit(known_queue(client, queue), check_name("limit", name), None))
    talk(f"limit {name} of queue {queue} is as its jobs say")
    return OK


@subcommand(command, "hold", epilog="\b\nExample:\n  headrace limit hold stripe:42 -Q payments --for 10m")
@click.argument("name")
@_queue
@click.option("--for", "seconds", type=duration_s, required=True, metavar="DURATION", help="30s, 10m …")
def hold(name: str, queue: str, seconds: float) -> int:
    """Let nothing through a limit for a while."""
    client = settings().client()
    client.run(ops.hold_limit(known_queue(client, queue), check_name("limit", name), int(seconds * 1000)))
    until = datetime.fromtimestamp(datetime.now(UTC).timestamp() + seconds, UTC).astimezone()
    talk(f"limit {name} of queue {queue} lets nothing through until about {until:%H:%M:%S}")
    return OK
