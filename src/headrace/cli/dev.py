"""`headrace dev`: embedded Valkey with data kept in `.headrace/`, a worker that reloads, the dashboard; one log, one Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import click

from headrace.cli.settings import settings, store_settings, talk
from headrace.errors import AppNotFound, UsageError
from headrace.server import DEV_FOLDER, EmbeddedServer, free_port, is_listening, write_dev_file
from headrace.worker.background import background_program, background_worker
from headrace.worker.config import POOLS

PORT = 16379
DASHBOARD_PORT = 8787
SLOTS = 10
WORKER_STOPS_WITHIN_S = 10.0
DASHBOARD_STOPS_WITHIN_S = 3.0

EPILOG = """\b
Examples:
  headrace dev
  headrace dev app.py
  headrace dev -A shop.jobs:app --pool asyncio
"""


@store_settings
@click.command(epilog=EPILOG)
@click.argument("app", required=False, metavar="[APP]")
@click.option("--pool", type=click.Choice(POOLS), default="threads", show_default=True, help="How jobs run.")
@click.option("--slots", type=click.IntRange(1, 1000), default=SLOTS, show_default=True, help="Jobs side by side.")
@click.option("--port", type=click.IntRange(0, 65535), help=f"Of the server. Default: {PORT}, or any free one.")
@click.option(
    "--dashboard-port",
    type=click.IntRange(1, 65535),
    help=f"Default: {DASHBOARD_PORT}, or any free one. On this machine only.",
)
def command(app: str | None, pool: str, slots: int, port: int | None, dashboard_port: int | None) -> int:
    """Develop: an embedded Valkey whose data are kept in .headrace/, a worker that reloads when you save, the dashboard.

    APP is module:app, a module, or a path; default: app.py. Programs started in this folder, or below it, find the
    server by themselves.
    """
    path = app or settings().app_path or "app.py"
    file = path.partition(":")[0]
    if file.endswith(".py") and not Path(file).is_file():
        raise AppNotFound(f"no {file} in {Path.cwd()}: name the app, as in `headrace dev shop/jobs.py`")
    shape = f"{slots} processes" if pool in ("prefork", "fork") else f"1 process, {slots} slots"
    arguments = ["-A", path, "--pool", pool, "--grace", "3s", "--name", "dev", "--reload"]
    arguments += ["--processes" if pool in ("prefork", "fork") else "--slots", str(slots)]
    if prefix := settings().prefix:
        arguments += ["--prefix", prefix]
    if "HEADRACE_LOG_LEVEL" not in os.environ:
        arguments += ["--log-level", "debug"]  # what fails shows its traceback
    with _serving(port) as url:
        talk(f"  valkey     {urlsplit(url).netloc}   embedded, data in {DEV_FOLDER}/")
        talk(f"  worker     {shape}, reloads when you save")
        # --url, not only the environment: an app that names a server of its own is developed against this one.
        arguments += ["--url", url]
        with ExitStack() as stack:
            _start_dashboard(stack, url, dashboard_port)
            worker = stack.enter_context(
                background_worker(arguments, environment={}, output=None, stops_within_s=WORKER_STOPS_WITHIN_S)
            )
            return _wait_for(worker)


def _start_dashboard(stack: ExitStack, url: str, asked: int | None) -> None:
    """As a program of its own, so that it is there while the worker reloads."""
    if find_spec("starlette") is None or find_spec("uvicorn") is None or find_spec("jinja2") is None:
        talk("  dashboard  needs the extra `web`: pip install 'headrace[web]'")
        return
    port = asked or (free_port() if is_listening(DASHBOARD_PORT) else DASHBOARD_PORT)
    arguments = ["web", "--quiet", "--url", url, "--port", str(port), "--environment", "dev"]
    if prefix := settings().prefix:
        arguments += ["--prefix", prefix]
    stack.enter_context(
        background_program(arguments, environment={}, output=None, stops_within_s=DASHBOARD_STOPS_WITHIN_S)
    )
    talk(f"  dashboard  http://127.0.0.1:{port}/")


def _wait_for(worker: subprocess.Popen[bytes]) -> int:
    """Pass our signals on, and wait; the worker's exit code, 0 when it was told to stop."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda number, _: worker.send_signal(number))
    code = worker.wait()
    return code if code >= 0 else 128 - code


@contextmanager
def _serving(port: int | None) -> Iterator[str]:
    """The server, and `.headrace/dev.json` by which other programs find it."""
    folder = Path(DEV_FOLDER).resolve()
    if _is_running(folder / "dev.json"):
        raise UsageError(f"`headrace dev` runs in {Path.cwd()} already: stop it first, or use another folder")
    folder.mkdir(exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    with ExitStack() as stack:
        server = _start_server(folder / "valkey", port)
        stack.callback(server.stop)
        note = write_dev_file(Path.cwd(), server.url)
        stack.callback(note.unlink, missing_ok=True)
        yield server.url


def _start_server(data_dir: Path, port: int | None) -> EmbeddedServer:
    """On the port asked for; else on the usual one, or any free one when that is taken."""
    if port is not None:
        return EmbeddedServer(port, data_dir=data_dir).start()
    try:
        return EmbeddedServer(PORT, data_dir=data_dir).start()
    except UsageError:
        return EmbeddedServer(data_dir=data_dir).start()  # it says so itself when it is not the port


def _is_running(note: Path) -> bool:
    """Whether the process that wrote the note is still there."""
    try:
        os.kill(json.loads(note.read_bytes())["pid"], 0)
    except (OSError, ValueError, KeyError):
        return False
    return True
