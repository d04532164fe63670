"""What a job is found by in a queue that keeps an index: its terms, as `engine/lua/include/index.lua` reads them out of a record."""

from __future__ import annotations

from headrace.core.filters import FIELD_CHARS_MAX
from headrace.core.record import Record, Stored

TERM_BYTES = 200
_NOT_ASCII = bytes(range(128, 256))
ERROR = "error"
UNREAD = "?"
"""Of a job whose record is too large to be read by a script: it may have any tag, field or error."""


def terms_of(record: Record) -> list[str]:
    """All of them but UNREAD, which only scripts give."""
    options = record.options
    found = [f"task:{record.task}"]
    if options is not None:
        found += [f"tag:{tag}" for tag in options.tags]
        found += [arg_term(path, text) for path, text in options.fields.items()]
    if record.errors or record.state == Stored.FAILED:
        found.append(ERROR)
    return list(dict.fromkeys(map(cut_term, found)))


def cut_term(term: str) -> str:
    """As long as a term may be."""
    data = term.replace("\0", " ").encode()
    # Never in the middle of a character: what is not ASCII at the end goes, too.
    return (data if len(data) <= TERM_BYTES else data[:TERM_BYTES].rstrip(_NOT_ASCII)).decode()


def arg_term(path: str, text: str) -> str:
    """Of a field that a task declares."""
    return cut_term(f"args.{path}:{text[:FIELD_CHARS_MAX]}")
