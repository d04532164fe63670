"""The index of a queue that asks for one, as pure functions: begun, ended, and read. Scripts keep it (`lua/include/index.lua`).

A search by it gives what a search without gives, sooner: each job that it names is judged by its record, as any other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from headrace.core.filters import Filter
from headrace.core.record import Record, State, Stored, decode
from headrace.core.terms import ERROR, UNREAD, arg_term, cut_term
from headrace.engine.admin import Row, ended_state
from headrace.engine.call import Arg, Call, Steps, command, script
from headrace.engine.keys import QueueKeys
from headrace.engine.ops import LAYOUT_ARG

IDS_A_CALL = 200
MOST_TASKS = 1_000


class Source(msgspec.Struct, frozen=True, array_like=True):
    """Where a search looks: the jobs of these terms, one after the other; `n`, `first`: where it is. `is_all`: no other job can match."""

    terms: list[str]
    is_all: bool
    n: int = 0
    first: int = 0


def state_of(queue: QueueKeys) -> Call[str | None]:
    """None: there is none; "0": it is being made; "1": it is whole."""
    return command("HGET", queue.meta, "indexed", key=queue.meta, decode=_optional_text)


def start(queue: QueueKeys) -> Steps[None]:
    """Keep an index from now on, and note the jobs that are there, some a call. May be done again, and goes on where it was cut off."""
    yield _set(queue, "on")
    cursor = "0"
    while True:
        cursor = (yield _set(queue, "slice", cursor)).decode()
        if cursor == "0":
            break
    yield _set(queue, "whole")


def end(queue: QueueKeys) -> Steps[None]:
    """Keep none any more, and delete what there is."""
    yield _set(queue, "off")
    names = _key(queue, "terms")
    while True:
        terms: list[bytes] = yield command("ZRANGE", names, 0, IDS_A_CALL - 1, key=names, decode=list)
        if not terms:
            break
        yield command("UNLINK", *(_key(queue, "index:") + term for term in terms), key=queue.jobs, decode=int)
        yield command("ZREM", names, *terms, key=names, decode=int)
    yield command("UNLINK", _key(queue, "index"), key=queue.jobs, decode=int)


def mend(queue: QueueKeys, ids: Iterable[str]) -> Steps[None]:
    """Note these jobs anew."""
    todo = list(ids)
    for first in range(0, len(todo), IDS_A_CALL):
        yield _set(queue, "again", *todo[first : first + IDS_A_CALL])


def drop_strays(queue: QueueKeys, strays: Sequence[tuple[str, str]]) -> Steps[None]:
    """Let these terms no longer name these jobs, where the jobs do not have them."""
    for first in range(0, len(strays), IDS_A_CALL):
        yield _set(queue, "strays", *(word for pair in strays[first : first + IDS_A_CALL] for word in pair))


def wrong_ones(queue: QueueKeys, ids: Sequence[str]) -> Call[list[str]]:
    """Those of up to 200 jobs that are not found by just what their records say."""
    found = script("index_look")
    return Call(found, queue.block(found.keys), [LAYOUT_ARG, *ids], _texts)


def plan(queue: QueueKeys, wanted: Filter, most: int) -> Steps[Source | None]:
    """The terms by which fewest jobs are to be looked at; None: the index does not help.

    Args:
        most: how many jobs stand in the states that are wanted.
    """
    asks = wanted.task is not None or wanted.tags or wanted.args or wanted.error is not None
    if not asks or (yield state_of(queue)) != "1":
        return None
    choices = [Source([cut_term(f"tag:{tag}"), UNREAD], True) for tag in wanted.tags]
    if wanted.error is not None:
        choices.append(Source([ERROR, UNREAD], True))
    if wanted.task is not None:
        choices.append(Source((yield from _tasks(queue, wanted.task)), True))
    best: tuple[int, Source] | None = None
    for choice in choices:
        size = yield from _size(queue, choice.terms)
        if best is None or size < best[0]:
            best = size, choice
    if best is not None and best[0] <= most:
        return best[1]
    for path, text in wanted.args:
        term = arg_term(path, text)
        if (yield from _size(queue, [term])):
            return Source([term], False)
    return None


def _tasks(queue: QueueKeys, name: str) -> Steps[list[str]]:
    """The terms of tasks with this name, whole or as its last part."""
    terms = yield from names_like(queue, "task:", MOST_TASKS)
    return [term for term in terms if term == f"task:{name}" or term.endswith(f".{name}")] or [f"task:{name}"]


def names_like(queue: QueueKeys, prefix: str, most: int) -> Steps[list[str]]:
    """Terms that begin so."""
    key = _key(queue, "terms")
    args: tuple[Arg, ...] = ("ZRANGEBYLEX", key, f"[{prefix}", f"[{prefix}".encode() + b"\xff", "LIMIT", 0, most)
    found: list[str] = yield command(*args, key=key, decode=_texts)
    return found


def _size(queue: QueueKeys, terms: Sequence[str]) -> Steps[int]:
    size = 0
    for term in terms:
        key = _key(queue, f"index:{term}")
        size += yield command("ZCARD", key, key=key, decode=int)
    return size


def read_slice(queue: QueueKeys, source: Source, count: int) -> Steps[tuple[list[tuple[str, Record]], Source | None]]:
    """Some of the jobs, the newest of a term first, and where to go on; None at the end."""
    found = script("index_page")
    args: list[Arg] = [LAYOUT_ARG, source.terms[source.n], source.first, count]
    ids, records = yield Call(found, queue.block(found.keys), args, list)
    pairs = [
        (job_id.decode(), decode(record)) for job_id, record in zip(ids, records, strict=True) if record is not None
    ]
    if len(ids) == count:
        return pairs, msgspec.structs.replace(source, first=source.first + count)
    if source.n + 1 < len(source.terms):
        return pairs, msgspec.structs.replace(source, n=source.n + 1, first=0)
    return pairs, None


def as_rows(queue: QueueKeys, jobs: Sequence[tuple[str, Record]], states: Collection[State]) -> Steps[list[Row]]:
    """Jobs with the states that they are in, if those are wanted."""
    rows = {i: Row(queue.name, i, ended_state(r), r) for i, r in jobs if r.state != Stored.LIVE}
    live = [(job_id, record) for job_id, record in jobs if record.state == Stored.LIVE]
    if live and any(not state.is_ended for state in states):
        found = script("index_places")
        args: list[Arg] = [LAYOUT_ARG, *(job_id for job_id, _ in live)]
        places = yield Call(found, queue.block(found.keys), args, list)
        for (job_id, record), (due, waits, session) in zip(live, places, strict=True):
            rows[job_id] = _row(queue.name, job_id, record, due, bool(waits), session.decode())
    return [rows[job_id] for job_id, _ in jobs if job_id in rows and rows[job_id].state in states]


def _row(queue: str, job_id: str, record: Record, due: bytes | float | None, waits: bool, session: str) -> Row:
    if session:
        return Row(queue, job_id, State.RUNNING, record, session=session)
    if due is not None:
        state = State.RETRYING if record.attempt else State.SCHEDULED
        return Row(queue, job_id, state, record, due_at_ms=int(float(due)))
    return Row(queue, job_id, State.WAITING if waits else State.QUEUED, record)


def _set(queue: QueueKeys, *args: Arg) -> Call[bytes]:
    found = script("index_set")
    return Call(found, queue.block(found.keys), [LAYOUT_ARG, *args], _raw)


def _key(queue: QueueKeys, name: str) -> bytes:
    return (queue.base + name).encode()


def _raw(reply: bytes) -> bytes:
    return reply


def _optional_text(reply: bytes | None) -> str | None:
    return None if reply is None else reply.decode()


def _texts(reply: Iterable[bytes]) -> list[str]:
    return [item.decode(errors="replace") for item in reply]
