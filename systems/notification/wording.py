"""The words of a notice in a user's language, from `notices/KIND.LANGUAGE.txt`: a subject, a text for mail, a short one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined

LANGUAGES = ("en", "vi")
_notices = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "notices"), undefined=StrictUndefined, autoescape=False
)


class Wording(msgspec.Struct, frozen=True):
    subject: str
    text: str
    short: str


def word(kind: str, language: str, values: Mapping[str, str]) -> Wording:
    """Plain text, whatever the values are: who makes HTML of it escapes it. A language that is not there is English."""
    template = _notices.get_template(f"{kind}.{language if language in LANGUAGES else 'en'}.txt")
    context = template.new_context(dict(values))
    parts = {name: "".join(block(context)).strip() for name, block in template.blocks.items()}
    return Wording(**parts)
