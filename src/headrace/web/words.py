"""The words of the pages in each language: one catalogue a language, `words/LANG.toml`, with the same keys."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

LANGUAGES = {"en": "English", "vi": "Tiếng Việt"}


@cache
def catalogue(language: str) -> dict[str, str]:
    text = (resources.files("headrace.web") / "words" / f"{language}.toml").read_text("utf8")
    return {key: str(value) for key, value in tomllib.loads(text).items()}


class Words:
    """One language: `t("key", n=3)`."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._texts = catalogue(language)

    def __contains__(self, key: str) -> bool:
        return key in self._texts

    def text(self, key: str) -> str:
        """With nothing put in yet."""
        return self._texts[key]

    def __call__(self, key: str, **values: object) -> str:
        return self._texts[key].format(**values)

    def number(self, count: int) -> str:
        """With its thousands apart, as the language does it."""
        found = f"{count:,}"
        return found.replace(",", ".") if self.language == "vi" else found


def choose(asked: str | None, saved: str | None, accepted: str) -> str:
    """What the address asks for, what was chosen before, what the browser prefers; else English."""
    for found in (asked, saved):
        if found in LANGUAGES:
            return found
    for part in accepted.lower().split(","):
        found = part.partition(";")[0].strip()[:2]
        if found in LANGUAGES:
            return found
    return "en"
