"""A report's files, made of its figures: HTML with charts that load nothing, CSV and XLSX that calculate nothing."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from pathlib import Path

import xlsxwriter
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from systems.analytics.days import Figures
from systems.analytics.question import Question
from systems.analytics.words import LANGUAGES, number, words

NAMES_SHOWN = 15
_FORMULA_BEGINS_WITH = ("=", "+", "-", "@", "\t", "\r", "\n")
_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
)


def make_files(question: Question, figures: Figures, made_at: datetime) -> dict[str, bytes]:
    """The files by name."""
    files = {f"{language}.html": _html(question, figures, made_at, language) for language in LANGUAGES}
    return files | {"csv": _csv(figures), "xlsx": _xlsx(question, figures)}


def _html(question: Question, figures: Figures, made_at: datetime, language: str) -> bytes:
    shown = {
        "t": words(language),
        "question": question,
        "figures": figures,
        "made_at": made_at,
        "number": lambda value: number(value, language),
        "names_shown": NAMES_SHOWN,
        "hours_named": [f"{hour:02}:00" for hour in range(24)],
    }
    return _templates.get_template("report.html").render(shown).encode()


def _csv(figures: Figures) -> bytes:
    """A line for each day, page and referrer. The mark at its start tells Excel that it is UTF-8."""
    out = io.StringIO(newline="")
    lines = csv.writer(out)
    lines.writerow(["kind", "name", "views", "visits", "visitors"])
    lines.writerows(["day", day.day.isoformat(), day.views, day.visits, day.visitors] for day in figures.days)
    for kind, names in (("page", figures.pages), ("referrer", figures.referrers)):
        lines.writerows([kind, harmless(name), views, "", ""] for name, views in names)
    return out.getvalue().encode("utf-8-sig")


def harmless(name: str) -> str:
    """What a spreadsheet will not take for a formula: a visitor chooses the names of pages, "=HYPERLINK(…)" say.

    See OWASP, "CSV Injection". In CSV nothing tells text from a formula but its first character.
    """
    return "'" + name if name.startswith(_FORMULA_BEGINS_WITH) else name


def _xlsx(question: Question, figures: Figures) -> bytes:
    """Three sheets. Names are written as strings: they are no formulas and no links, whatever they begin with."""
    out = io.BytesIO()
    with xlsxwriter.Workbook(out, {"in_memory": True}) as book:
        head, day_format = book.add_format({"bold": True}), book.add_format({"num_format": "yyyy-mm-dd"})
        days = book.add_worksheet("Days")
        for column, name in enumerate(("day", "views", "visits", "visitors")):
            days.write_string(0, column, name, head)
        for row, day in enumerate(figures.days, 1):
            days.write_datetime(row, 0, datetime(day.day.year, day.day.month, day.day.day), day_format)
            for column, value in enumerate((day.views, day.visits, day.visitors), 1):
                days.write_number(row, column, value)
        days.set_column(0, 0, 12)
        chart = book.add_chart({"type": "column"})
        assert chart is not None, "there are charts of columns"
        last = len(figures.days)
        chart.add_series({"categories": ["Days", 1, 0, last, 0], "values": ["Days", 1, 1, last, 1], "name": "views"})
        chart.set_title({"name": f"{question.first} – {question.last}", "overlay": False})
        chart.set_legend({"none": True})
        days.insert_chart("F2", chart)
        for title, names in (("Pages", figures.pages), ("Referrers", figures.referrers)):
            sheet = book.add_worksheet(title)
            sheet.write_string(0, 0, "name", head)
            sheet.write_string(0, 1, "views", head)
            for row, (name, views) in enumerate(names, 1):
                sheet.write_string(row, 0, name)
                sheet.write_number(row, 1, views)
            sheet.set_column(0, 0, 50)
    return out.getvalue()
