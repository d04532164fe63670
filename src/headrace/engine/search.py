"""Finding the jobs that a filter means, as pure functions: place by place, a bounded number of jobs a call.

Nothing here reads a whole queue in one call: what is found comes with how far was looked, and where to go on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from headrace.core.filters import Filter, Names, no_names
from headrace.core.record import Record, decode
from headrace.core.terms import arg_term
from headrace.engine import ops
from headrace.engine.admin import JOBS_A_CALL, Page, QueueCounts, Row, count_jobs, list_jobs, places_of
from headrace.engine.call import Steps
from headrace.engine.index import MOST_TASKS, Source, as_rows, plan, read_slice
from headrace.engine.keys import QueueKeys, check_job_id
from headrace.errors import UsageError

FEW = 64
MOST_LOOKED_AT = 5_000
_INDEX, _REST = "index ", "rest "
_REST_OF = re.compile(r"rest (\d{1,3}) ", re.ASCII)
_PLACE = re.compile(r"[a-z]+:\d{1,15}", re.ASCII)
_BAD_CURSOR = "this address is not one of ours: its cursor cannot be read"


class Found(msgspec.Struct):
    """`looked_at`: how many jobs were read for it. `cursor`: pass it on for what follows; "" at the end."""

    rows: list[Row]
    looked_at: int
    cursor: str


def find_jobs(
    queues: Sequence[QueueKeys],
    wanted: Filter,
    *,
    cursor: str = "",
    limit: int = 50,
    most: int = MOST_LOOKED_AT,
    names: Names = no_names,
) -> Steps[Found]:
    """Jobs that match, queue by queue in the order given, each in the order of `admin.list_jobs`.

    Args:
        limit: about so many rows (up to 256 more), unless the end comes before.
        most: jobs to look at, about; the rest by the cursor.

    Raises:
        UsageError: the cursor is not one of ours.
    """
    found = Found([], 0, "")
    name, _, place = cursor.partition(" ")
    order = [queue.name for queue in queues]
    if cursor and name not in order:
        raise UsageError(_BAD_CURSOR)
    first = order.index(name) if cursor else 0
    if not cursor and wanted.id is not None:
        yield from _find_by_id(queues, wanted, found, names)
        if found.rows:
            return found
    for queue in queues[first:]:
        if wanted.queue is not None and queue.name != wanted.queue:
            continue
        source = yield from _source(queue, wanted, place)
        while True:
            if len(found.rows) >= limit or found.looked_at >= most:
                found.cursor = f"{queue.name} {_INDEX + _encoded(source) if source else place}"
                return found
            if source is not None:
                is_all, term, paths = source.is_all, source.terms[0], _terms_of_args(wanted)
                source = yield from _look_by_index(queue, wanted, source, found, names)
                if source is None and is_all:
                    place = ""
                    break
                if source is None:
                    # The rest may match by an argument that its task does not declare: who wants to know asks on.
                    found.cursor = f"{queue.name} {_REST}{paths.index(term)} "
                    return found
                continue
            place = yield from _look_further(queue, wanted, place, limit, found, names)
            if not place:
                break
    return found


def _source(queue: QueueKeys, wanted: Filter, place: str) -> Steps[Source | None]:
    """The index, where it helps, or where it was left."""
    if place.startswith(_INDEX):
        return _decoded(place.removeprefix(_INDEX))
    if place:
        return None
    counts = yield from count_jobs(queue)
    return (yield from plan(queue, wanted, count_in(counts, wanted) + counts.running))


def _look_by_index(
    queue: QueueKeys, wanted: Filter, source: Source, found: Found, names: Names
) -> Steps[Source | None]:
    size = FEW if len(found.rows) * 8 >= found.looked_at else JOBS_A_CALL
    jobs, further = yield from read_slice(queue, source, size)
    found.looked_at += len(jobs)
    matching = [(job_id, record) for job_id, record in jobs if wanted.matches(job_id, record, names)]
    found.rows += yield from as_rows(queue, matching, wanted.states)
    return further


def _encoded(source: Source) -> str:
    return msgspec.json.encode(source).decode()


def _decoded(text: str) -> Source:
    try:
        found = msgspec.json.decode(text, type=Source)
    except msgspec.MsgspecError:
        raise UsageError(_BAD_CURSOR) from None
    if not 0 <= found.n < len(found.terms) <= MOST_TASKS or found.first < 0:
        raise UsageError(_BAD_CURSOR)
    return found


def _look_further(queue: QueueKeys, wanted: Filter, place: str, limit: int, found: Found, names: Names) -> Steps[str]:
    """One slice of a queue; returns where to go on in it."""
    missing = limit - len(found.rows)
    # Where most jobs match, little is read in vain; where few do, a slice is large.
    is_dense = len(found.rows) * 8 >= found.looked_at
    size = min(missing, JOBS_A_CALL) if wanted.takes_all else FEW if is_dense else JOBS_A_CALL
    told = _REST_OF.match(place)
    place = place[told.end() :] if told else place
    if (told and int(told[1]) >= len(wanted.args)) or (place and not _PLACE.fullmatch(place)):
        raise UsageError(_BAD_CURSOR)
    page: Page = yield from list_jobs(queue, wanted.states, cursor=place, limit=size)
    found.looked_at += page.looked_at
    found.rows += (
        row
        for row in page.rows
        if wanted.matches(row.id, row.record, names)
        and not (told and _declares(row.record, wanted.args[int(told[1])][0]))
    )
    return told[0] + page.cursor if told and page.cursor else page.cursor


def _terms_of_args(wanted: Filter) -> list[str]:
    return [arg_term(path, text) for path, text in wanted.args]


def _declares(record: Record, path: str) -> bool:
    """Whether the index has told of it: its task declares what was looked up."""
    return record.options is not None and path in record.options.fields


def _find_by_id(queues: Sequence[QueueKeys], wanted: Filter, found: Found, names: Names) -> Steps[None]:
    """A whole id is looked up at once."""
    try:
        job_id = check_job_id(wanted.id)
    except UsageError:
        return
    for queue in queues:
        look = yield from ops.look(queue, job_id)
        found.looked_at += 1
        if look is None or look.state not in wanted.states or wanted.queue not in (None, queue.name):
            continue
        row = Row(queue.name, job_id, look.state, decode(look.record), look.due_ms, look.session)
        if wanted.matches(row.id, row.record, names):
            found.rows.append(row)


def count_in(counts: QueueCounts, wanted: Filter) -> int:
    """How many jobs of a queue stand in the places where these states are: what a search looks through at most."""
    sizes = {
        "held": counts.running, "suspects": 0, "priority": 0, "group": 0, "ready": counts.queued, "parked": counts.parked,
        "waiting": counts.waiting, "delayed": counts.delayed, "dead": counts.dead, "done": counts.done,
    }  # fmt: skip
    return sum(sizes[place] for place in places_of(wanted.states))
