"""`headrace check`: the server's settings, and the invariants of every queue's data."""

from __future__ import annotations

import time
from typing import Any

import click

from headrace.cli.job import queues_of
from headrace.cli.output import print_rows
from headrace.cli.settings import FAILED, OK, settings, store_json, talk
from headrace.engine.admin import server_time_ms
from headrace.engine.audit import audit
from headrace.engine.clients import SyncClient
from headrace.engine.keys import queues_key
from headrace.errors import ServerUnsupported

COLUMNS = ("verdict", "what", "message")
CLOCK_MAY_DIFFER_S = 1.0


@store_json
@click.command(epilog="\b\nExamples:\n  headrace check\n  headrace check --json | jq 'select(.verdict != \"ok\")'")
@click.option("--queue", "-Q", metavar="NAME", help="Check this queue only.")
def command(queue: str | None) -> int:
    """Check the server (version, maxmemory-policy, persistence, clock) and the data of every queue.

    Exit code 0: all well, or warnings only; 1: something is wrong.
    """
    client = settings().client()
    rows = [*check_server(client), *check_clock(client)]
    for keys in queues_of(client, queue):
        report = client.run(audit(keys))
        rows += (_row("wrong", f"queue {keys.name}", violation.message) for violation in report.violations)
        if report.truncated:
            rows.append(_row("warning", f"queue {keys.name}", "there is more amiss than is shown"))
        if not report.violations:
            rows.append(_row("ok", f"queue {keys.name}", f"{report.jobs} jobs, each in its place"))
    print_rows(rows, COLUMNS)
    wrong = sum(row["verdict"] == "wrong" for row in rows)
    warnings = sum(row["verdict"] == "warning" for row in rows)
    talk(f"{wrong} wrong, {warnings} warnings")
    return FAILED if wrong else OK


def check_server(client: SyncClient) -> list[dict[str, Any]]:
    """What the server is, and whether jobs are safe there."""
    try:
        info = client.check_server()
    except ServerUnsupported as error:
        return [_row("wrong", "server", str(error))]
    kind = "a cluster of " if info.is_cluster else ""
    rows = [
        _row("ok", "server", f"{kind}{info}"),
        _row("ok", "maxmemory-policy", info.policy),
    ]
    if info.has_persistence:
        rows.append(_row("ok", "persistence", "on"))
    else:
        text = "off: a restart of the server loses every job; set `appendonly yes`"
        rows.append(_row("warning", "persistence", text))
    return rows


def check_clock(client: SyncClient) -> list[dict[str, Any]]:
    """How far the server's clock is from ours: `at=` and `expires=` are instants of the caller's clock."""
    before = time.time()
    server_ms = client.run(server_time_ms(queues_key(client.prefix)))
    apart_s = server_ms / 1000 - (before + time.time()) / 2
    if abs(apart_s) > CLOCK_MAY_DIFFER_S:
        text = f"the server's is {apart_s:+.1f} s from this machine's: synchronise both (NTP)"
        return [_row("warning", "clock", text)]
    return [_row("ok", "clock", f"{apart_s:+.3f} s from this machine's")]


def _row(verdict: str, what: str, message: str) -> dict[str, Any]:
    return {"verdict": verdict, "what": what, "message": message}
