"""`headrace ping`: does the server answer?"""

from __future__ import annotations

import time

import click

from headrace.cli.output import print_fields
from headrace.cli.settings import OK, settings, store_json
from headrace.engine.call import command as redis_command
from headrace.engine.connect import masked_url


@store_json
@click.command(epilog="\b\nExample:\n  headrace ping --url redis://localhost:6379/0 && echo it answers")
def command() -> int:
    """Ask the server for a sign of life: exit code 0, or 69 when it is unreachable."""
    client = settings().client(budget_s=0)
    started = time.perf_counter()
    client.run(redis_command("PING", decode=bool))
    print_fields(
        {
            "server": masked_url(client.config.url),
            "ms": round((time.perf_counter() - started) * 1000, 2),
        }
    )
    return OK
