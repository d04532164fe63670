"""The tables: every page view, and how many there were of each page in each minute."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, Index, Text
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA = "tracking"


class Base(DeclarativeBase):
    pass


class PageView(Base):
    """One view. `id` is its job's: a view that were written twice would be refused by the primary key."""

    __tablename__ = "page_view"
    __table_args__ = (Index("page_view_at", "at", postgresql_using="brin"),)

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    visitor: Mapped[str] = mapped_column(Text)
    page: Mapped[str] = mapped_column(Text)
    referrer: Mapped[str] = mapped_column(Text)
    browser: Mapped[str] = mapped_column(Text)
    ip: Mapped[str | None] = mapped_column(INET)


class PageMinute(Base):
    """What the page of figures reads: it stays small when `page_view` has grown large."""

    __tablename__ = "page_minute"

    minute: Mapped[datetime] = mapped_column(DateTime(timezone=True), primary_key=True)
    page: Mapped[str] = mapped_column(Text, primary_key=True)
    views: Mapped[int] = mapped_column(BigInteger)
