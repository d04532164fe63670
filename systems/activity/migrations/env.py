"""Run by alembic: the migrations of this system, in its own schema."""

from systems.activity.models import SCHEMA, Base
from systems.common.database import run_migrations

run_migrations(SCHEMA, Base.metadata)
