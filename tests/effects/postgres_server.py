"""A PostgreSQL server for one test process, quick rather than safe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from systems.common.postgres import NOT_SAFE, EmbeddedPostgres


@contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of its database `postgres`."""
    with EmbeddedPostgres(NOT_SAFE) as server:
        yield server.url
