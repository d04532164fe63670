"""People, posts, the partitioned table of events, and the notes of effects that were had."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from headrace.effects import DDL

revision = "0001"
down_revision = None

POSTS = (
    ("Con nước", "Mùa nước nổi năm nay về sớm.", "lan"),
    ("The mill", "The wheel turns again since Monday.", "ann"),
    ("Ghi chú", "Nhớ gọi lại cho xưởng mộc.", "minh"),
)


def upgrade() -> None:
    op.create_table("person", sa.Column("name", sa.Text, primary_key=True), sa.Column("about", sa.Text, nullable=False))
    post = op.create_table(
        "post",
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )
    op.bulk_insert(post, [{"title": title, "text": text, "author": author} for title, text, author in POSTS])
    op.execute(sa.schema.CreateSequence(sa.Sequence("event_arrived")))
    op.create_table(
        "event",
        sa.Column("at", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("arrived", sa.BigInteger, nullable=False, server_default=sa.text("nextval('event_arrived')")),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("level", sa.Text, nullable=False),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("data", JSONB, nullable=False),
        postgresql_partition_by="RANGE (at)",
    )
    op.create_index("event_by_username", "event", ["username", sa.text("at DESC")])
    op.create_index("event_by_kind", "event", ["kind", sa.text("at DESC")])
    op.execute(DDL["postgresql"])
    op.create_index("headrace_effect_at", "headrace_effect", ["at_ms"], postgresql_using="brin")


def downgrade() -> None:
    for table in ("headrace_effect", "event", "post", "person"):
        op.drop_table(table)
    op.execute(sa.schema.DropSequence(sa.Sequence("event_arrived")))
