"""The language in which people say which jobs they mean: `task:mail.send state:dead queue:low error:Timeout args.user.id:42 since:2h text`.

The same on the dashboard and on the command line. This file reads it and judges one job; where jobs are looked for is
`engine.search`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from headrace.core.durations import seconds_in
from headrace.core.failures import error_of, fingerprint
from headrace.core.record import JobOptions, Record, State
from headrace.core.ties import group_in
from headrace.errors import UsageError

KEYS = ("task", "state", "queue", "error", "tag", "group", "id", "since")
HELP = (
    "Which jobs, e.g. 'task:mail.send state:dead since:2h'. Keys: task, state, queue, error, tag, group, id, since, "
    "args.NAME; a bare word: any."
)
_ARGS = "args."
FIELD_CHARS_MAX = 150
"""So much of a value is kept to look jobs up by."""
_plain = msgspec.msgpack.Decoder(tuple[Any, ...])

Names = Callable[[str], Sequence[str]]
"""The names of a task's positional parameters; () when it is not known here."""


def no_names(_: str) -> Sequence[str]:
    return ()


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs are meant: all that is said must hold.

    `task`: its whole name, or its last part. `error`: type, part of the message, or fingerprint. `id`: how it begins.
    `since_ms`: created at this instant or later. `args`: path -> value, both as text. `words`: each is in the id, the task, the error or the
    description.
    """

    states: AbstractSet[State] = frozenset(State)
    queue: str | None = None
    task: str | None = None
    error: str | None = None
    tags: tuple[str, ...] = ()
    group: str | None = None
    id: str | None = None
    since_ms: int | None = None
    args: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] = ()

    @property
    def takes_all(self) -> bool:
        """Whether every job in one of its states is meant."""
        return self == Filter(states=self.states, queue=self.queue)

    def matches(self, job_id: str, record: Record, names: Names = no_names) -> bool:
        """Whether a job is meant, its state and queue aside."""
        options = record.options
        if self.id is not None and not job_id.startswith(self.id):
            return False
        if self.task is not None and record.task != self.task and not record.task.endswith(f".{self.task}"):
            return False
        if self.since_ms is not None and record.created_at_ms < self.since_ms:
            return False
        if self.tags and (options is None or not set(self.tags).issubset(options.tags)):
            return False
        if self.group is not None and (options is None or group_in(options.ties) != self.group):
            return False
        if (self.error is not None or self.words) and not self._has_texts(job_id, record, options):
            return False
        return not self.args or _has_args(self.args, record, names)

    def _has_texts(self, job_id: str, record: Record, options: JobOptions | None) -> bool:
        kind, message = error_of(record)
        if self.error is not None and not (
            self.error in (kind, kind.rpartition(".")[2])
            or (message and self.error in message)
            or (kind and self.error == fingerprint(record))
        ):
            return False
        texts = (
            job_id,
            record.task,
            f"{kind}: {message}" if kind else message,
            (options and options.description) or "",
        )
        return all(any(word in text for text in texts) for word in self.words)


def _has_args(wanted: Sequence[tuple[str, str]], record: Record, names: Names) -> bool:
    fields: Mapping[str, str] = record.options.fields if record.options else {}
    call: tuple[Any, ...] | None = None
    for path, text in wanted:
        if path in fields:
            if fields[path] != text[:FIELD_CHARS_MAX]:
                return False
            continue
        if call is None:
            try:
                call = _plain.decode(record.payload)
            except (msgspec.MsgspecError, RecursionError):
                return False
        if text not in values_at(path, call, names(record.task)):
            return False
    return True


def values_at(path: str, call: Sequence[Any], names: Sequence[str]) -> list[str]:
    """What stands at a path in a call's arguments, as text; several where the path is ambiguous.

    `user.id`: the argument `user`, by name, and in it `id`. `0`: the first positional one. The argument's own name may have dots.
    """
    args: Sequence[Any] = call[0] if call else ()
    kwargs: Mapping[str, Any] = call[1] if len(call) > 1 else {}
    named = {**dict(zip(names, args, strict=False)), **{str(n): value for n, value in enumerate(args)}, **kwargs}
    return [text for text in map(text_of, _inside(named, path)) if text is not None]


def _inside(value: Any, path: str) -> list[Any]:
    if not path:
        return [value]
    found: list[Any] = []
    pairs: Any = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in pairs:
        if path == str(name):
            found.append(inner)
        elif path.startswith(f"{name}."):
            found += _inside(inner, path[len(str(name)) + 1 :])
    return found


def text_of(value: object) -> str | None:
    """A value as people would type it; None for one that holds others."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, Mapping, bytes)):
        return None
    return str(value)


def parse_filter(
    text: str | None,
    *,
    now_ms: int,
    states: AbstractSet[State] = frozenset(),
    task: str | None = None,
    queue: str | None = None,
    default_states: AbstractSet[State] = frozenset(State),
) -> Filter:
    """Read a filter; what was said beside it counts too.

    Raises:
        UsageError: naming the word that is wrong.
    """
    found: dict[str, Any] = {"task": task, "queue": queue}
    named, tags, args, words = set(states), list[str](), list[tuple[str, str]](), list[str]()
    try:
        parts = shlex.split(text or "")
    except ValueError as error:
        raise UsageError(f"the filter {text!r:.200} cannot be read: {error}") from None
    for part in parts:
        key, colon, value = part.partition(":")
        if not colon or not key:
            words.append(part)
        elif key.startswith(_ARGS) and len(key) > len(_ARGS):
            args.append((key[len(_ARGS) :], value))
        elif key not in KEYS:
            raise UsageError(
                f"no key {key!r:.60} in a filter; keys: {', '.join(KEYS)}, args.NAME. Quote a word with a colon: ':{key}'"
            )
        elif not value:
            raise UsageError(f"the filter says {part!r:.60} and no more: say what, e.g. {key}:{_EXAMPLES[key]}")
        elif key == "state":
            named.update(_state(name) for name in value.split(","))
        elif key == "tag":
            tags.append(value)
        elif key == "since":
            found["since_ms"] = now_ms - round(seconds_in(value) * 1000)
        elif found.get(key) not in (None, value):
            raise UsageError(f"{key} is said twice: {found[key]} and {value}")
        else:
            found[key] = value
    return Filter(
        states=frozenset(named or default_states), tags=tuple(tags), args=tuple(args), words=tuple(words), **found
    )


_EXAMPLES = {
    "task": "mail.send", "state": "failed", "queue": "default", "error": "TimeoutError", "tag": "vip", "group": "tenant-1",
    "id": "1k83ra38", "since": "2h",
}  # fmt: skip


def _state(name: str) -> State:
    if name == "dead":
        return State.FAILED
    try:
        return State(name)
    except ValueError:
        raise UsageError(f"no state {name!r:.60}; states: {', '.join(State)}, dead") from None


def with_word(text: str, key: str, value: str) -> str:
    """A filter's text with one key said otherwise; "" takes it out."""
    kept = [part for part in _parts(text) if not part.startswith(f"{key}:")]
    return shlex.join([*kept, f"{key}:{value}"] if value else kept)


def _parts(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()
