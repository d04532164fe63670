"""`rq.logutils`: colours for a terminal, and a handler for a logger that has none."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, TextIO

from headrace.contrib.rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT

_CODES = {
    "black": 30, "darkred": 31, "darkgreen": 32, "brown": 33, "darkyellow": 33, "darkblue": 34, "purple": 35,
    "teal": 36, "darkteal": 36, "lightgray": 37, "darkgray": 90, "red": 91, "green": 92, "yellow": 93, "blue": 94,
    "fuchsia": 95, "turquoise": 96, "white": 97,
}  # fmt: skip


def make_colorizer(color: str) -> Callable[[str], str]:
    """A function that puts a text in this colour, if stdout is a terminal.

    Raises:
        KeyError: no such colour.
    """
    code = _CODES[color]

    def colorize(text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if sys.stdout.isatty() else text

    return colorize


green = make_colorizer("darkgreen")
yellow = make_colorizer("darkyellow")
blue = make_colorizer("darkblue")
red = make_colorizer("darkred")


class ColorizingStreamHandler(logging.StreamHandler[TextIO]):
    """A stream handler; on a terminal, warnings are yellow and errors red."""

    levels: dict[int, Callable[[str], str]] = {  # noqa: RUF012 - RQ's name
        logging.WARNING: yellow,
        logging.ERROR: red,
        logging.CRITICAL: red,
    }

    def __init__(self, exclude: Any = None, stream: TextIO | None = None) -> None:
        self.exclude = exclude
        super().__init__(stream)

    @property
    def is_tty(self) -> bool:
        return bool(getattr(self.stream, "isatty", bool)())

    def format(self, record: logging.LogRecord) -> str:
        first, *trace = super().format(record).split("\n", 1)
        paint = self.levels.get(record.levelno)
        return "\n".join([paint(first) if paint is not None and self.is_tty else first, *trace])


def setup_loghandlers(
    level: int | str | None = None,
    date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
    log_format: str = DEFAULT_LOGGING_FORMAT,
    name: str = "rq.worker",
) -> None:
    """Give a logger its level; and, if nothing handles what it says, handlers: errors to stderr, the rest to stdout."""
    logger = logging.getLogger(name)
    if not logger.hasHandlers():
        form = logging.Formatter(log_format, date_format)
        for stream, is_for in ((sys.stdout, _is_no_error), (sys.stderr, _is_error)):
            handler = ColorizingStreamHandler(stream=stream)
            handler.setFormatter(form)
            handler.addFilter(is_for)
            logger.addHandler(handler)
        logger.propagate = False
    if level is not None:
        logger.setLevel(level.upper() if isinstance(level, str) else level)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _is_no_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR
