"""`headrace rq migrate`: what lies in RQ's keys, moved into headrace."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

from headrace.cli.output import print_rows
from headrace.cli.settings import OK, REFUSED, refuse, settings, subcommand, talk

if TYPE_CHECKING:
    from headrace.contrib.rq.source import Source

COLUMNS = ("queue", "state", "in_rq", "moved", "stay", "rq_now", "headrace_now")
EPILOG = """\b
Examples:
  headrace rq migrate --from redis://localhost:6379/0 --dry-run
  headrace rq migrate --from redis://old:6379/0 --url redis://new:6379/0 --queue high --queue low
"""


def _bring_back(source: Source, target: Any, queues: tuple[str, ...]) -> None:
    from headrace.contrib.rq.bring_back import bring_back
    from headrace.contrib.rq.source import LockHeld, LockLost

    try:
        found = bring_back(source, target, queues)
    except (LockHeld, LockLost) as error:
        refuse(str(error))
    rows = [{"queue": queue, "back": count} for queue, count in sorted(found.items())]
    print_rows(rows, ("queue", "back"), empty="nothing that was moved waits")


def add_to(group: click.Group) -> None:
    """Make it a command of this group."""

    @subcommand(group, "migrate", epilog=EPILOG)
    @click.option("--from", "source_url", required=True, envvar="RQ_REDIS_URL", show_envvar=True, help="RQ's server.")
    @click.option("--queue", "queues", multiple=True, help="One of RQ's queues; again for more. Default: all.")
    @click.option("--dry-run", is_flag=True, help="Count and tell; change nothing.")
    @click.option("--abandoned", is_flag=True, help="Also what RQ's workers held or lost when they died. None may run.")
    @click.option("--back", is_flag=True, help="The other way: what was moved and has not run. No worker may run.")
    @click.option(
        "-S", "--serializer", default="pickle", show_default=True, help="RQ's: pickle, json, or a dotted path."
    )
    @click.option("-P", "--path", multiple=True, default=["."], help="Where such a serializer's module is.")
    @click.option(
        "--rq-prefix", default="rq", envvar="RQ_KEY_PREFIX", show_envvar=True, show_default=True,
        help="What RQ's keys start with.",
    )  # fmt: skip
    @click.option(
        "--keep-days", type=click.FloatRange(0, 3650), default=7, show_default=True,
        help="How long RQ's copies are kept; 0: not at all.",
    )  # fmt: skip
    def migrate(
        source_url: str, queues: tuple[str, ...], dry_run: bool, abandoned: bool, back: bool, serializer: str,
        path: tuple[str, ...], rq_prefix: str, keep_days: float,
    ) -> int:  # fmt: skip
        """Move the jobs that lie in RQ's keys into headrace, with their ids. May be run again at any time.

        Prints what each place had, what was moved and what stays, and what both sides hold now. Each job that stays is
        named on stderr, with the reason; the exit code is then 4.
        """
        # Imported here, as the other commands of `rq` need none of it.
        from headrace.contrib.rq.connections import connection_to
        from headrace.contrib.rq.migrate import Move
        from headrace.contrib.rq.serializers import resolve_serializer
        from headrace.contrib.rq.source import LockHeld, LockLost, Source
        from headrace.contrib.rq.stored import RQKeys

        source = Source(connection_to(source_url), RQKeys(rq_prefix))
        target = connection_to(settings().bare_app().server_config.url)
        if back:
            if dry_run or abandoned:
                raise click.UsageError("--back goes with --from, --url, --queue and --rq-prefix only")
            _bring_back(source, target, queues)
            return OK
        sys.path[:0] = [place for place in path if place not in sys.path]
        try:
            found = resolve_serializer(serializer)
        except (ImportError, AttributeError, ValueError, NotImplementedError) as error:
            raise click.BadParameter(f"no serializer: {error}", param_hint="--serializer") from error
        move = Move(
            source,
            target,
            queues=queues,
            serializer=found,
            with_held=abandoned,
            is_dry=dry_run,
            keep_s=keep_days * 86_400,
            tell=lambda job_id, queue, place, why: talk(f"stays: {job_id} ({queue}, {place}): {why}"),
        )
        try:
            rows = move.run()
        except (LockHeld, LockLost) as error:
            refuse(str(error))
        print_rows([msgspec.structs.asdict(row) for row in rows], COLUMNS, empty="RQ's keys hold no jobs")
        return REFUSED if any(row.stay for row in rows) else OK
