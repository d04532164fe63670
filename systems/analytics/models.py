"""The tables: reports that are ready, their files, and a line for each time that a day was counted."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import BigInteger, Date, DateTime, Float, ForeignKey, Identity, Index, LargeBinary, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA = "analytics"


class Base(DeclarativeBase):
    pass


class ReadyReport(Base):
    """`id` is that of the flow that made it."""

    __tablename__ = "report"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    first: Mapped[date] = mapped_column(Date)
    last: Mapped[date] = mapped_column(Date)
    pages: Mapped[str] = mapped_column(Text)
    views: Mapped[int] = mapped_column(BigInteger)
    made_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class ReportFile(Base):
    """What can be looked at or downloaded: `name` is en.html, vi.html, csv or xlsx."""

    __tablename__ = "report_file"

    report: Mapped[str] = mapped_column(Text, ForeignKey("report.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)


class DayCounted(Base):
    """A line each time that a day was counted to its end: twice, if its worker died before it could say so."""

    __tablename__ = "day_counted"
    __table_args__ = (Index("day_counted_report", "report"),)

    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    report: Mapped[str] = mapped_column(Text)
    day: Mapped[date] = mapped_column(Date)
    views: Mapped[int] = mapped_column(BigInteger)
    took_s: Mapped[float] = mapped_column(Float)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
