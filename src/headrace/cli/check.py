"""`headrace check`: the server's settings, and the invariants of every queue's data; `--repair` mends what is broken."""

from __future__ import annotations

import time
from typing import Any

import click

from headrace.cli.job import queues_of
from headrace.cli.output import print_rows
from headrace.cli.settings import FAILED, OK, confirm, settings, store_json, talk
from headrace.engine.admin import server_time_ms
from headrace.engine.audit import Audit, audit, repair
from headrace.engine.clients import SyncClient
from headrace.engine.keys import QueueKeys, queues_key
from headrace.errors import LayoutTooNew, ServerCorrupt, ServerUnsupported

COLUMNS = ("verdict", "what", "message")
CLOCK_MAY_DIFFER_S = 1.0


@store_json
@click.command(
    epilog="\b\nExamples:\n  headrace check\n  headrace check --json | jq 'select(.verdict != \"ok\")'\n"
    "  headrace check --queue mail --repair --yes"
)
@click.option("--queue", "-Q", metavar="NAME", help="Check this queue only.")
@click.option("--repair", "must_repair", is_flag=True, help="Mend what is wrong with the queues' data.")
@click.option("--yes", is_flag=True, help="Do not ask before mending.")
def command(queue: str | None, must_repair: bool, yes: bool) -> int:
    """Check the server (version, maxmemory-policy, persistence, clock) and the data of every queue.

    Workers may run meanwhile. --repair gives each job the one place where it belongs: who holds it keeps it, a job
    that stands nowhere goes back to its queue, an entry without a job is dropped. No job is deleted.

    Exit code 0: all well (or mended), or warnings only; 1: something is wrong; 4: not confirmed.
    """
    client = settings().client()
    rows = [*check_server(client), *check_clock(client)]
    reports: list[tuple[QueueKeys, Audit]] = []
    for keys in queues_of(client, queue):
        try:
            reports.append((keys, client.run(audit(keys))))
        except (LayoutTooNew, ServerCorrupt) as error:
            rows.append(_row("wrong", f"queue {keys.name}", str(error)))
    wrong_jobs = sum(len(report.violations) for _, report in reports)
    if must_repair and wrong_jobs:
        confirm(f"Mend {wrong_jobs} findings in {sum(bool(r.violations) for _, r in reports)} queues?", yes=yes)
    for keys, report in reports:
        after = client.run(repair(keys)) if must_repair and report.violations else report
        rows += _rows_of(report, after)
    print_rows(rows, COLUMNS)
    wrong = sum(row["verdict"] == "wrong" for row in rows)
    warnings = sum(row["verdict"] == "warning" for row in rows)
    mended = sum(row["verdict"] == "mended" for row in rows)
    talk(f"{wrong} wrong, {warnings} warnings" + (f", {mended} mended" if mended else ""))
    return FAILED if wrong else OK


def _rows_of(before: Audit, after: Audit) -> list[dict[str, Any]]:
    """What a queue's check found: what a repair has mended since, and what is wrong still."""
    what = f"queue {before.queue}"
    rows = [_row("mended", what, found.message) for found in before.violations if found not in after.violations]
    rows += (_row("wrong", what, found.message) for found in after.violations)
    if after.truncated:
        rows.append(_row("warning", what, "there is more amiss than is shown"))
    if not after.violations:
        rows.append(_row("ok", what, f"{after.jobs} jobs, each in its place"))
    return rows


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
