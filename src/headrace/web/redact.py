"""Which fields of arguments and results are never shown: hidden by name, wherever they stand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from headrace.errors import UsageError

HIDDEN = "•••"
DEFAULT = ("*password*", "*passwd*", "*secret*", "*token*", "api_key", "apikey", "authorization")


class Redact:
    """Hides the values of fields by their names: `Redact(["password", "card_*"])`; `*` stands for any letters, case does not count."""

    def __init__(self, names: Iterable[str] = DEFAULT) -> None:
        if isinstance(names, str):
            raise UsageError(f"redact: expected a list of names, got the text {names!r:.60}")
        self._patterns = tuple(name.lower() for name in names)

    def hides(self, name: object) -> bool:
        lowered = str(name).lower()
        return any(fnmatchcase(lowered, pattern) for pattern in self._patterns)

    def hides_path(self, path: str) -> bool:
        """Whether any part of `user.password.old` is hidden."""
        return any(map(self.hides, path.split("."))) or self.hides(path)

    def shown(self, value: Any) -> Any:
        """The value without what is hidden."""
        if isinstance(value, Mapping):
            return {name: HIDDEN if self.hides(name) else self.shown(inner) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.shown(inner) for inner in value]
        return value

    def restored(self, edited: Any, original: Any) -> Any:
        """What somebody edited of `shown(original)`: what they could not see is put back where they left it."""
        if edited == HIDDEN and original is not None:
            return original
        if isinstance(edited, dict) and isinstance(original, Mapping):
            return {name: self.restored(inner, original.get(name)) for name, inner in edited.items()}
        if isinstance(edited, list) and isinstance(original, list):
            return [self.restored(inner, original[n] if n < len(original) else None) for n, inner in enumerate(edited)]
        return edited
