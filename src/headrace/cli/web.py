"""`headrace web`: the dashboard alone, on this machine; elsewhere only for known users."""

from __future__ import annotations

import ipaddress
import sys

import click

from headrace.cli.settings import OK, WRONG_USE, Ended, refuse, settings, store_settings, talk

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1", "[::1]")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@store_settings
@click.command(
    epilog="\b\nExamples:\n  headrace web --url redis://localhost:6379/0\n  headrace web --read-only --environment staging"
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; a public one needs --auth.")
@click.option("--port", type=click.IntRange(0, 65535), default=8787, show_default=True)
@click.option("--root-path", default="", metavar="PATH", help="Where a proxy shows it, e.g. /jobs.")
@click.option("--read-only", is_flag=True, help="Nobody may change anything.")
@click.option(
    "--auth", multiple=True, metavar="USER:HASH", envvar="HEADRACE_WEB_AUTH", show_envvar=True, help="Who may use it."
)
@click.option("--environment", default="", metavar="NAME", help="A badge on each page; 'production' is red.")
@click.option(
    "--redact",
    multiple=True,
    metavar="NAME",
    help="Never show values of fields named so, e.g. 'card*'. [default: *password*, *secret*, *token* …]",
)
@click.option("--hash-password", is_flag=True, help="Ask for a password, print its hash, and end.")
def command(
    host: str,
    port: int,
    root_path: str,
    read_only: bool,
    auth: tuple[str, ...],
    environment: str,
    redact: tuple[str, ...],
    hash_password: bool,
) -> int:
    """Show queues, jobs and workers in a browser, until Ctrl-C. Needs the extra `web`."""
    try:
        import uvicorn

        from headrace.web import Access, dashboard
        from headrace.web.access import Passwords
        from headrace.web.access import hash_password as hashed
        from headrace.web.redact import DEFAULT
    except ImportError as error:
        raise Ended(f"{error}: pip install 'headrace[web]'", WRONG_USE) from None
    if hash_password:
        click.echo(hashed(click.prompt("Password", hide_input=True, confirmation_prompt=sys.stdin.isatty(), err=True)))
        return OK
    if not auth and not is_loopback(host):
        refuse(
            f"{host} can be reached by others: say who may use it with --auth USER:HASH (--hash-password makes the hash)"
        )
    known = Passwords(auth) if auth else lambda _: Access.all("local")
    access = (lambda request: known(request).without_writes()) if read_only else known
    found = settings().app() if settings().url is None else settings().bare_app()
    # A page of another site could reach a listener without passwords under a name of its own: it must use ours.
    site = dashboard(
        found, access=access, environment=environment, hosts=None if auth else LOCAL_NAMES, redact=redact or DEFAULT
    )
    shown = f"[{host}]" if ":" in host else host
    talk(f"dashboard on http://{shown}:{port}{root_path}/ ; Ctrl-C ends it")
    uvicorn.run(site, host=host, port=port, root_path=root_path, log_level="warning", server_header=False)
    return OK
