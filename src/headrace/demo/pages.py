"""The pages of the demo's site, the same on every run, and how to count the words of one. Pure."""

from __future__ import annotations

import html
import random
import re
import unicodedata
from dataclasses import dataclass
from html.parser import HTMLParser

from headrace.demo import text

PAGES = 48
_SEED = 1746


@dataclass(frozen=True, slots=True)
class Page:
    """One page. `words`: how many it has, known from its sentences and not from its HTML."""

    path: str
    language: str
    title: str
    html: str
    words: int


@dataclass(frozen=True, slots=True)
class _Grammar:
    language: str
    subjects: tuple[str, ...]
    verbs: tuple[str, ...]
    objects: tuple[str, ...]
    endings: tuple[str, ...]
    sentences: tuple[str, ...]

    def sentence(self, rng: random.Random) -> str:
        first, second = rng.sample(self.subjects, 2)
        line = rng.choice(self.sentences).format(
            s=first,
            s2=second,
            v=rng.choice(self.verbs),
            v2=rng.choice(self.verbs),
            o=rng.choice(self.objects),
            o2=rng.choice(self.objects),
            e=rng.choice(self.endings),
        )
        return line[0].upper() + line[1:]

    def title(self, rng: random.Random) -> str:
        title = f"{rng.choice(self.subjects)} {rng.choice(self.verbs)} {rng.choice(self.objects)}"
        return title[0].upper() + title[1:]


_GRAMMARS = (
    _Grammar("en", text.ENGLISH_SUBJECTS, text.ENGLISH_VERBS, text.ENGLISH_OBJECTS, text.ENGLISH_ENDINGS,
             text.ENGLISH_SENTENCES),
    _Grammar("vi", text.VIETNAMESE_SUBJECTS, text.VIETNAMESE_VERBS, text.VIETNAMESE_OBJECTS,
             text.VIETNAMESE_ENDINGS, text.VIETNAMESE_SENTENCES),
)  # fmt: skip


def make_pages() -> list[Page]:
    """A few dozen pages, English and Vietnamese in turn."""
    rng = random.Random(_SEED)
    return [_make_page(number, _GRAMMARS[number % 2], rng) for number in range(PAGES)]


def _make_page(number: int, grammar: _Grammar, rng: random.Random) -> Page:
    title = grammar.title(rng)
    paragraphs = [[grammar.sentence(rng) for _ in range(rng.randint(3, 8))] for _ in range(rng.randint(4, 20))]
    plain = unicodedata.normalize("NFKD", title.lower().replace("đ", "d")).encode("ascii", "ignore").decode()
    slug = "-".join(re.findall(r"[a-z]+", plain)[:4])
    body = "\n".join(f"<p>{html.escape(' '.join(lines))}</p>" for lines in paragraphs)
    markup = (
        f'<!doctype html>\n<html lang="{grammar.language}">\n<head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>body {{ max-width: 40em }}</style></head>\n"
        f"<body>\n<h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )
    words = sum(len(line.split()) for line in [title, *(line for lines in paragraphs for line in lines)])
    return Page(f"/pages/{number:02d}-{slug}", grammar.language, title, markup, words)


class _Words(HTMLParser):
    """Counts the words between the tags of a body."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self._is_inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._is_inside = self._is_inside or tag == "body"

    def handle_endtag(self, tag: str) -> None:
        self._is_inside = self._is_inside and tag != "body"

    def handle_data(self, data: str) -> None:
        if self._is_inside:
            self.count += len(data.split())


def count_words(markup: str) -> int:
    """How many words a reader of this HTML sees."""
    words = _Words()
    words.feed(markup)
    words.close()
    return words.count
