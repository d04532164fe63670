"""The filter language of `--filter`: words such as `task:mail.send state:dead queue:low error:Timeout text`."""

from __future__ import annotations

import shlex
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import click

from headrace.core.record import State
from headrace.core.ties import group_in
from headrace.engine.admin import Row, error_of, fingerprint

FILTER_HELP = (
    "Which jobs, e.g. 'task:mail.send state:dead'. Keys: task, state, queue, error, tag, group, id; a bare word: any."
)
_KEYS = ("task", "state", "queue", "error", "tag", "group", "id")


@dataclass(frozen=True)
class Filter:
    """All must hold. `words`: each is in the id, the task, the error or the description. `error`: type, part of the
    message, or fingerprint."""

    states: AbstractSet[State]
    queue: str | None = None
    task: str | None = None
    error: str | None = None
    tag: str | None = None
    group: str | None = None
    id: str | None = None
    words: tuple[str, ...] = ()

    def matches(self, row: Row) -> bool:
        record = row.record
        kind, message = error_of(record)
        options = record.options
        return (
            (self.task is None or record.task == self.task or record.task.endswith(f".{self.task}"))
            and (self.error is None or self.error in (kind, fingerprint(record)) or self.error in message)
            and (self.tag is None or (options is not None and self.tag in options.tags))
            and (self.group is None or (options is not None and group_in(options.ties) == self.group))
            and (self.id is None or row.id.startswith(self.id))
            and all(
                word in row.id
                or word in record.task
                or word in f"{kind}: {message}"
                or (options is not None and word in (options.description or ""))
                for word in self.words
            )
        )


def parse_filter(
    text: str | None,
    *,
    states: AbstractSet[State] = frozenset(),
    task: str | None = None,
    queue: str | None = None,
    default_states: AbstractSet[State] = frozenset(State),
) -> Filter:
    """Read a filter; what options said beside it counts too."""
    found: dict[str, str] = {}
    words: list[str] = []
    named: set[State] = set(states)
    try:
        parts = shlex.split(text or "")
    except ValueError as error:
        raise click.UsageError(f"--filter {text!r}: {error}") from None
    for word in parts:
        key, colon, value = word.partition(":")
        if not colon:
            words.append(word)
        elif key not in _KEYS:
            raise click.UsageError(f"--filter: no key {key!r}; keys: {', '.join(_KEYS)}")
        elif key == "state":
            named.update(_state(name) for name in value.split(","))
        else:
            found[key] = value
    if task is not None:
        found["task"] = task
    if queue is not None:
        found["queue"] = queue
    return Filter(
        states=named or default_states,
        queue=found.get("queue"),
        task=found.get("task"),
        error=found.get("error"),
        tag=found.get("tag"),
        group=found.get("group"),
        id=found.get("id"),
        words=tuple(words),
    )


def _state(name: str) -> State:
    if name == "dead":
        return State.FAILED
    try:
        return State(name)
    except ValueError:
        raise click.UsageError(f"--filter: no state {name!r}; states: {', '.join(State)}, dead") from None
