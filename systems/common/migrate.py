"""Bring the tables of all systems in $DATABASE_URL to their newest revision: `python -m systems.common.migrate`."""

from __future__ import annotations

from systems.common.catalogue import SYSTEMS, schema_of
from systems.common.database import upgrade


def migrate() -> None:
    for system in SYSTEMS:
        upgrade(schema_of(system), system.migrations)


if __name__ == "__main__":
    migrate()
