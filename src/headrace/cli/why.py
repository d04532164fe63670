"""`headrace why`: why a job is not running."""

from __future__ import annotations

import click

from headrace.cli.job import find_job
from headrace.cli.output import print_fields
from headrace.cli.settings import OK, settings, store_json
from headrace.engine.why import why


@store_json
@click.command(epilog="\b\nExample:\n  headrace why 1k84q0d9bc6hsm7cgcaf")
@click.argument("job_id")
@click.option("--queue", "-Q", metavar="NAME", help="Look in this queue only.")
def command(job_id: str, queue: str | None) -> int:
    """Tell why a job is not running: a line a reason, the nearest first."""
    client = settings().client()
    keys, look = find_job(client, job_id, queue)
    reasons = [str(reason) for reason in client.run(why(keys, job_id))]
    if settings().is_json:
        print_fields({"id": job_id, "queue": keys.name, "state": str(look.state), "reasons": reasons})
        return OK
    for reason in reasons:
        click.echo(reason)
    return OK
