"""A PostgreSQL server for one test process, quick rather than safe.

As a program, `python postgres_server.py COMMAND…` runs a command with the server's URL as its last argument.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from systems.common.postgres import NOT_SAFE, EmbeddedPostgres


@contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of its database `postgres`."""
    with EmbeddedPostgres(NOT_SAFE) as server:
        yield server.url


if __name__ == "__main__":
    with running_postgres() as found_url:
        code = subprocess.run([*sys.argv[1:], found_url]).returncode
    sys.exit(code)
