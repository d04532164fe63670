"""Page views, their counts by minute, and the notes of effects that were had."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import INET

from headrace.effects import DDL

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "page_view",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("visitor", sa.Text, nullable=False),
        sa.Column("page", sa.Text, nullable=False),
        sa.Column("referrer", sa.Text, nullable=False),
        sa.Column("browser", sa.Text, nullable=False),
        sa.Column("ip", INET),
    )
    op.create_index("page_view_at", "page_view", ["at"], postgresql_using="brin")
    op.create_table(
        "page_minute",
        sa.Column("minute", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("page", sa.Text, primary_key=True),
        sa.Column("views", sa.BigInteger, nullable=False),
    )
    op.execute(DDL["postgresql"])
    op.create_index("headrace_effect_at", "headrace_effect", ["at_ms"], postgresql_using="brin")


def downgrade() -> None:
    for table in ("headrace_effect", "page_minute", "page_view"):
        op.drop_table(table)
