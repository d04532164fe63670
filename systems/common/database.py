"""The SQL database of the systems: $DATABASE_URL, a schema for each system, its tables made by its own migrations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import alembic.command
from alembic.config import Config
from sqlalchemy import URL, Engine, MetaData, create_engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

VARIABLE = "DATABASE_URL"
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 20


def database_url() -> URL:
    """$DATABASE_URL for psycopg 3, however the scheme is written (postgres://, postgresql://, postgresql+psycopg://)."""
    given = os.environ.get(VARIABLE)
    if not given:
        raise RuntimeError(f"set {VARIABLE}, or start the systems with `make systems`, which brings a PostgreSQL")
    if given.startswith("postgres://"):
        given = given.replace("postgres://", "postgresql://", 1)
    return make_url(given).set(drivername="postgresql+psycopg")


def make_engine(schema: str, **options: Any) -> Engine:
    """Connections that see the tables of one system. Nothing is opened yet."""
    return create_engine(database_url(), **{**_options(schema), **options})


def make_async_engine(schema: str, **options: Any) -> AsyncEngine:
    """The twin of `make_engine` for asyncio."""
    return create_async_engine(database_url(), **{**_options(schema), **options})


def _options(schema: str) -> dict[str, Any]:
    """Whatever hangs (a lock, a link that lost its other end) becomes an OperationalError within these times."""
    arguments = {
        "options": f"-csearch_path={schema} -cstatement_timeout={STATEMENT_TIMEOUT_S}s",
        "connect_timeout": CONNECT_TIMEOUT_S,
        "keepalives_idle": STATEMENT_TIMEOUT_S,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": STATEMENT_TIMEOUT_S * 1000,
    }
    return {"connect_args": arguments, "pool_pre_ping": True}


def upgrade(schema: str, migrations: Path) -> None:
    """Bring one system's tables to the newest revision, creating its schema at first."""
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["schema"] = schema
    alembic.command.upgrade(config, "head")


def run_migrations(schema: str, metadata: MetaData) -> None:
    """What a system's migrations/env.py does."""
    from alembic import context

    engine = make_engine(schema)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        # Two starters at once: the second waits, and finds all done.
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": f"systems/{schema}"})
        connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
        context.configure(connection=connection, target_metadata=metadata)
        context.run_migrations()
    engine.dispose()
