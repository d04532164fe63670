"""Start all systems: `python -m systems` (`make systems`), until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from headrace.server import EmbeddedServer
from systems.analytics.telling import VARIABLE as TELLS
from systems.common.catalogue import SYSTEMS
from systems.common.database import VARIABLE
from systems.common.migrate import migrate
from systems.common.postgres import EmbeddedPostgres
from systems.common.programs import Program, until, web_server, worker
from systems.notification.outside import outside
from systems.notification.unsubscribing import PUBLIC_URL, SECRET

WEB = "systems.common.front:web"
FOR_EVER_S = 10 * 365 * 86_400.0


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, str]]:
    """PostgreSQL and Valkey, those of the environment or our own, and providers to play with; what the programs are told."""
    with ExitStack() as stack:
        database = os.environ.get(VARIABLE) or stack.enter_context(EmbeddedPostgres()).url
        # A file of its own on the disk, so that accepted jobs outlive the server.
        queue = os.environ.get("HEADRACE_URL") or stack.enter_context(EmbeddedServer(data_dir=folder / "valkey")).url
        told = {VARIABLE: database, "HEADRACE_URL": queue, "ACTIVITY_SPOOL": str(folder / "spool")}
        told[TELLS] = "notification"
        told[SECRET] = os.environ.get(SECRET) or secrets.token_hex(32)
        told |= stack.enter_context(outside(folder))
        os.environ.update(told)
        yield told


def main() -> int:
    """Exit code 1: a program ended by itself."""
    options = _options()
    signal.signal(signal.SIGTERM, _interrupt)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hr-systems-")))
        told = stack.enter_context(servers(folder))
        programs: list[Program] = []
        migrate()
        web = web_server(WEB, log=folder / "web.log", environment=told, host=options.host, port=options.port)
        program, url = stack.enter_context(web)
        programs.append(program)
        told[PUBLIC_URL] = f"{url}/notification"
        for system in SYSTEMS:
            log = folder / f"{system.name}.log"
            programs.append(stack.enter_context(worker(system.tasks, *system.worker, log=log, environment=told)))
        print(f"{url}/  the systems; Ctrl-C stops them, and forgets their data", flush=True)
        try:
            until(lambda: any(each.process.poll() is not None for each in programs), FOR_EVER_S, "the end")
        except KeyboardInterrupt:
            print("stopping", flush=True)
            return 0
        ended = [each for each in programs if each.process.poll() is not None]
        print(*(f"{each.log.stem} ended:\n{each.said[-3000:]}" for each in ended), sep="\n", file=sys.stderr)
        return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m systems", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    return parser.parse_args()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
