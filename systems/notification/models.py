"""The tables: users, what they want no more, notices, a delivery for each way that a notice goes, and the steps of each."""

from __future__ import annotations

from datetime import datetime, time

from sqlalchemy import BigInteger, Boolean, DateTime, ForeignKey, Identity, Index, Text, Time
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA = "notification"


class Base(DeclarativeBase):
    pass


class Person(Base):
    """A user. Without an address, a notice does not go that way. Quiet hours are of the clock in `zone`."""

    __tablename__ = "person"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    language: Mapped[str] = mapped_column(Text)
    mail: Mapped[str | None] = mapped_column(Text)
    sms: Mapped[str | None] = mapped_column(Text)
    push: Mapped[str | None] = mapped_column(Text)
    zone: Mapped[str] = mapped_column(Text)
    quiet_begins: Mapped[time | None] = mapped_column(Time)
    quiet_ends: Mapped[time | None] = mapped_column(Time)


class Unsubscribed(Base):
    __tablename__ = "unsubscribed"

    person: Mapped[str] = mapped_column(Text, ForeignKey("person.id", ondelete="CASCADE"), primary_key=True)
    category: Mapped[str] = mapped_column(Text, primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Notice(Base):
    """`id` is that of the job that took it in."""

    __tablename__ = "notice"
    __table_args__ = (Index("notice_at", "at"),)

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    person: Mapped[str] = mapped_column(Text, ForeignKey("person.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(Text)
    values: Mapped[dict[str, str]] = mapped_column(JSONB)
    is_urgent: Mapped[bool] = mapped_column(Boolean)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Delivery(Base):
    """`id` is that of the job that sends it. `status`: waiting, sent, skipped or dead."""

    __tablename__ = "delivery"
    __table_args__ = (Index("delivery_notice", "notice"), Index("delivery_status", "status", "changed_at"))

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    notice: Mapped[str] = mapped_column(Text, ForeignKey("notice.id", ondelete="CASCADE"))
    channel: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    changed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Step(Base):
    """What happened to a delivery: taken, quiet, busy, away, failed, sent, skipped, dead, replayed."""

    __tablename__ = "step"
    __table_args__ = (Index("step_delivery", "delivery"),)

    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    delivery: Mapped[str] = mapped_column(Text, ForeignKey("delivery.id", ondelete="CASCADE"))
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    what: Mapped[str] = mapped_column(Text)
    detail: Mapped[str] = mapped_column(Text)
