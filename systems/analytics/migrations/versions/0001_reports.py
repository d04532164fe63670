"""Reports and their files, the days that were counted, and the notes of effects that were had."""

import sqlalchemy as sa
from alembic import op

from headrace.effects import DDL

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "report",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("first", sa.Date, nullable=False),
        sa.Column("last", sa.Date, nullable=False),
        sa.Column("pages", sa.Text, nullable=False),
        sa.Column("views", sa.BigInteger, nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "report_file",
        sa.Column("report", sa.Text, sa.ForeignKey("report.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "day_counted",
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("report", sa.Text, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("views", sa.BigInteger, nullable=False),
        sa.Column("took_s", sa.Float, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("day_counted_report", "day_counted", ["report"])
    op.execute(DDL["postgresql"])


def downgrade() -> None:
    for table in ("headrace_effect", "day_counted", "report_file", "report"):
        op.drop_table(table)
