"""Users and what they want no more, notices, their deliveries and steps."""

from datetime import time
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

NIGHT = {"quiet_begins": time(22), "quiet_ends": time(7)}
NONE = {"quiet_begins": None, "quiet_ends": None}
FIRST_USERS: list[dict[str, Any]] = [
    {"id": "ann", "name": "Ann", "language": "en", "sms": "+441632960001", "zone": "Europe/London", **NONE},
    {"id": "binh", "name": "Bình", "language": "vi", "sms": "+84900000002", "zone": "Asia/Ho_Chi_Minh", **NIGHT},
    {"id": "chi", "name": "Chi", "language": "vi", "sms": None, "zone": "Asia/Ho_Chi_Minh", **NONE},
    {"id": "dan", "name": "Dan", "language": "en", "sms": "+12025550104", "zone": "America/New_York", **NIGHT},
]
"""To try it with."""


def upgrade() -> None:
    person = op.create_table(
        "person",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("mail", sa.Text),
        sa.Column("sms", sa.Text),
        sa.Column("push", sa.Text),
        sa.Column("zone", sa.Text, nullable=False),
        sa.Column("quiet_begins", sa.Time),
        sa.Column("quiet_ends", sa.Time),
    )
    op.create_table(
        "unsubscribed",
        sa.Column("person", sa.Text, sa.ForeignKey("person.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("category", sa.Text, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "notice",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("person", sa.Text, sa.ForeignKey("person.id", ondelete="CASCADE"), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("values", JSONB, nullable=False),
        sa.Column("is_urgent", sa.Boolean, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("notice_at", "notice", ["at"])
    op.create_table(
        "delivery",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("notice", sa.Text, sa.ForeignKey("notice.id", ondelete="CASCADE"), nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("delivery_notice", "delivery", ["notice"])
    op.create_index("delivery_status", "delivery", ["status", "changed_at"])
    op.create_table(
        "step",
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("delivery", sa.Text, sa.ForeignKey("delivery.id", ondelete="CASCADE"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("step_delivery", "step", ["delivery"])
    users = [user | {"mail": f"{user['id']}@example.com", "push": f"phone-of-{user['id']}"} for user in FIRST_USERS]
    op.bulk_insert(person, users)


def downgrade() -> None:
    for table in ("step", "delivery", "notice", "unsubscribed", "person"):
        op.drop_table(table)
