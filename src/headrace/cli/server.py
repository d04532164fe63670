"""`headrace server`: the embedded Valkey alone, until Ctrl-C. For development."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from headrace.cli.settings import OK, store_settings, talk
from headrace.server import EmbeddedServer


@store_settings
@click.command(epilog="\b\nExamples:\n  headrace server\n  headrace server --port 6379 --data .headrace/valkey")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: any free one.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
    metavar="FOLDER",
    help="Keep the data here. Default: they are gone when the server ends.",
)
def command(port: int, data: Path | None) -> int:
    """Run the embedded Valkey alone, on this machine only, until Ctrl-C. Not for production: no password, no replica.

    Prints its URL.
    """
    signals = {signal.SIGINT, signal.SIGTERM}
    with EmbeddedServer(data_dir=data, port=port) as server:
        # Blocked from now on, so that sigwait gets them; not before, or the server's process would never see them.
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        click.echo(server.url)
        kept = f"data in {data}" if data else "its data go with it"
        talk(f"an embedded Valkey for development; {kept}; Ctrl-C ends it")
        signal.sigwait(signals)
    return OK
