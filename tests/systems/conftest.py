"""A PostgreSQL for each test process, and the systems' programs on it and on the test's Valkey."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from headrace.server import EmbeddedServer
from systems.common.postgres import NOT_SAFE, EmbeddedPostgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """It may be stopped: a test that does starts it again."""
    with EmbeddedPostgres(NOT_SAFE) as server:
        yield server


@pytest.fixture(scope="session")
def environment(
    postgres: EmbeddedPostgres, valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """What every program of the systems is told."""
    told = {
        "DATABASE_URL": postgres.url,
        "HEADRACE_URL": valkey.url,
        "PYTHONWARNINGS": "error",
        "ACTIVITY_SPOOL": str(tmp_path_factory.mktemp("activity") / "spool"),
    }
    before = os.environ.get("DATABASE_URL")
    os.environ["DATABASE_URL"] = postgres.url
    yield told
    if before is None:
        del os.environ["DATABASE_URL"]
    else:
        os.environ["DATABASE_URL"] = before
