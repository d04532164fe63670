"""Run by alembic: the migrations of this system, in its own schema."""

from systems.common.database import run_migrations
from systems.notification.models import SCHEMA, Base

run_migrations(SCHEMA, Base.metadata)
