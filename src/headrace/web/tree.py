"""A value as people read it on a page: objects and lists that fold, also without script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from markupsafe import Markup

MOST_NODES = 400
MOST_CHARS = 2_000
MOST_DEEP = 20
OPEN_DEEP = 2


def as_json(value: Any, indent: int = 2) -> str:
    """For people: what JSON cannot say is shown as Python would. `indent` 0: on one line."""
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=repr), indent=indent).decode()


def as_call(call: Mapping[str, Any]) -> str:
    """Arguments on one line: `1, "text", name={"id": 7}`."""
    args = [as_json(value, indent=0) for value in call.get("args", ())]
    return ", ".join([*args, *(f"{name}={as_json(value, indent=0)}" for name, value in call.get("kwargs", {}).items())])


def tree(value: Any) -> Markup:
    """Nested `<details>`; long texts and large values are cut, and say so."""
    return Markup('<div class="json">{}</div>').format(_node(Markup(""), value, [MOST_NODES], 0))


def _node(name: Markup, value: Any, left: list[int], depth: int) -> Markup:
    """`left`: how many more are shown."""
    left[0] -= 1
    if isinstance(value, Mapping):
        pairs, ends = list(value.items()), "{}"
    elif isinstance(value, (list, tuple)):
        pairs, ends = list(enumerate(value)), "[]"
    else:
        return Markup("{}<code>{}</code>").format(name, _leaf(value))
    if not pairs or depth >= MOST_DEEP:
        return Markup("{}<code>{}</code>").format(name, ends if not pairs else f"{ends[0]}…{ends[1]}")
    rows = Markup("")
    for n, (key, inner) in enumerate(pairs):
        if left[0] <= 0:
            rows += Markup("<li>… {}</li>").format(f"{len(pairs) - n:,}")
            break
        rows += Markup("<li>{}</li>").format(_node(Markup("<b>{}</b> ").format(str(key)), inner, left, depth + 1))
    is_open = Markup(" open") if depth < OPEN_DEEP and len(pairs) <= 50 else Markup("")
    size = f"{ends[0]}{len(pairs):,}{ends[1]}"
    return Markup("<details{}><summary>{}{}</summary><ul>{}</ul></details>").format(is_open, name, size, rows)


def _leaf(value: Any) -> str:
    text = msgspec.json.encode(value, enc_hook=repr).decode() if not isinstance(value, float) else repr(value)
    return text if len(text) <= MOST_CHARS else f"{text[:MOST_CHARS]}… ({len(text):,})"
