"""Storing many jobs: what is sent, one step after the other. One job goes a shorter way, `Headrace.send`."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from headrace.core.options import Durability
from headrace.engine import ops
from headrace.engine.call import Steps, Store
from headrace.errors import HeadraceError, JobExists, NotDurable, UsageError
from headrace.job import Job, JobCall, take_existing

R = TypeVar("R")

ByPlace: TypeAlias = dict[tuple[str, Durability], list[ops.NewJob]]
"""Jobs by their queue and by how safe they must be."""


class Sender(Protocol):
    """What storing needs of the app. `announced`: the queues that this program has put on the list of all."""

    announced: set[str]

    @property
    def prefix(self) -> str: ...

    @property
    def default_queue(self) -> str: ...

    def new_job(self, call: JobCall[R], /) -> tuple[ops.NewJob, Job[R]]: ...

    def tell_enqueued(self, jobs: Sequence[Job[Any]], /) -> None: ...


def announce(app: Sender, *queues: str) -> Steps[None]:
    """Put queues on the list of all queues, if this program has not done so."""
    new = [queue for queue in dict.fromkeys(queues) if queue not in app.announced]
    if new:
        yield ops.announce_queues(app.prefix, new)
        app.announced.update(new)


def store_many(app: Sender, calls: Iterable[JobCall[R]]) -> Steps[list[Job[R]]]:
    """Store calls, one round trip a part; see `Headrace.enqueue_many`."""
    jobs, parts = _prepare(app, calls)
    stored = 0
    same: dict[str, str] = {}
    for part in parts:
        try:
            yield from announce(app, part.queue)
            same.update((yield part))
        except HeadraceError as error:
            _note_stored(error, stored, len(part.jobs), len(jobs))
            raise
        stored += len(part.jobs)
    jobs = [take_existing(job, same) for job in jobs] if same else jobs
    app.tell_enqueued(jobs)
    return jobs


def in_parts(jobs: Mapping[tuple[str, Durability], list[ops.NewJob]]) -> list[Store]:
    """As many requests as it takes: of one queue each, up to 1,000 jobs, about 4 MiB."""
    return [Store(queue, part, durability) for (queue, durability), news in jobs.items() for part in _chunks(news)]


def _prepare(app: Sender, calls: Iterable[JobCall[R]]) -> tuple[list[Job[R]], list[Store]]:
    jobs: list[Job[R]] = []
    places: ByPlace = {}
    chosen: set[tuple[str, str]] = set()
    for call in calls:
        if not isinstance(call, JobCall):
            raise UsageError(f"enqueue_many: expected calls made by task.call(...), got {call!r:.80}")
        new, job = app.new_job(call)
        if new.check_id:
            if (job.queue, job.id) in chosen:
                raise JobExists(f"job_id {job.id} is given to two of the calls", job.id)
            chosen.add((job.queue, job.id))
        jobs.append(job)
        places.setdefault((job.queue, call.plan.durability), []).append(new)
    return jobs, in_parts(places)


def _chunks(news: list[ops.NewJob]) -> Generator[list[ops.NewJob]]:
    start = size = 0
    for i, new in enumerate(news):
        if i > start and (i - start >= ops.MOST_JOBS_A_CALL or size + len(new.record) > ops.MOST_BYTES_A_CALL):
            yield news[start:i]
            start, size = i, 0
        size += len(new.record)
    if start < len(news):
        yield news[start:]


def _note_stored(error: HeadraceError, before: int, now: int, total: int) -> None:
    if isinstance(error, NotDurable):
        error.add_note(f"{before + now} of {total} jobs are stored, the last {now} of them not confirmed")
    else:
        error.add_note(f"{before} of {total} jobs had been stored before")
