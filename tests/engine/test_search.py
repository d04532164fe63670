"""Finding jobs by a filter: all that match and no other, place by place, and never more than was allowed at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace import Headrace
from headrace.core.filters import Filter, parse_filter
from headrace.core.record import State
from headrace.engine import admin, ops
from headrace.engine.keys import QueueKeys, queue_keys
from headrace.engine.search import MOST_LOOKED_AT, Found, count_in, find_jobs


def read(text: str) -> Filter:
    return parse_filter(text, now_ms=1_800_000_000_000)


@pytest.fixture
def app(url: str) -> Iterator[Headrace]:
    with Headrace(url) as found:
        yield found


def all_of(app: Headrace, queues: list[QueueKeys], text: str, *, limit: int = 50) -> tuple[list[str], list[Found]]:
    pages: list[Found] = []
    cursor = ""
    while True:
        pages.append(app.client.run(find_jobs(queues, read(text), cursor=cursor, limit=limit)))
        cursor = pages[-1].cursor
        if not cursor:
            return [row.id for page in pages for row in page.rows], pages


def test_a_search_over_queues_finds_each_job_that_matches_once(app: Headrace) -> None:
    """In any place: ready, of a priority, of a group, scheduled, failed or cancelled; page by page."""
    wanted = set[str]()
    for name in ("mail", "low"):
        queue = app.queue(name)
        for n in range(70):
            wanted.add(queue.enqueue("mail.send", n).id)
            queue.enqueue("mail.sort", n)
        wanted.add(app.options(queue=name, priority=5).enqueue("mail.send", 1).id)
        wanted.add(app.options(queue=name, delay=60).enqueue("mail.send", 1).id)
        wanted.add(app.options(queue=name, group="g").enqueue("mail.send", 1).id)
        job = queue.enqueue("mail.send", "ended")
        job.cancel()
        wanted.add(job.id)
    found, pages = all_of(app, [queue_keys("mail"), queue_keys("low")], "task:mail.send", limit=20)
    assert len(found) == len(set(found))
    assert set(found) == wanted
    assert len(pages) > 2
    assert all(len(page.rows) <= 20 + admin.JOBS_A_CALL for page in pages)
    only, _ = all_of(app, [queue_keys("mail"), queue_keys("low")], "task:mail.send queue:low state:scheduled")
    assert len(only) == 1


def test_a_search_looks_at_so_many_jobs_and_no_more(app: Headrace) -> None:
    """It says how many, and where to go on."""
    queue = queue_keys("long")
    app.enqueue_many(app.queue("long").call("a.b", n) for n in range(1_500))
    first = app.client.run(find_jobs([queue], read("task:none"), most=500))
    assert first.rows == []
    assert 500 <= first.looked_at <= 500 + admin.JOBS_A_CALL
    assert first.cursor
    found, pages = all_of(app, [queue], "args.0:1499")
    assert len(found) == 1
    assert sum(page.looked_at for page in pages) == 1_500
    assert all(page.looked_at <= MOST_LOOKED_AT + admin.JOBS_A_CALL for page in pages)
    counts = app.client.run(admin.count_jobs(queue))
    assert count_in(counts, read("state:queued")) == 1_500
    assert count_in(counts, read("state:failed")) == 0


def test_a_whole_id_is_looked_up_at_once(app: Headrace) -> None:
    """Whatever stands before it; what else the filter says must hold too."""
    queue = queue_keys("long")
    app.enqueue_many(app.queue("long").call("a.b", n) for n in range(300))
    job = app.queue("long").enqueue("a.c", 1)
    found = app.client.run(find_jobs([queue], read(f"id:{job.id}")))
    assert [row.id for row in found.rows] == [job.id]
    assert found.looked_at == 1
    assert all_of(app, [queue], f"id:{job.id} state:failed")[0] == []
    app.client.run(ops.cancel(queue, job.id))
    (row,) = app.client.run(find_jobs([queue], read(f"id:{job.id}"))).rows
    assert row.state is State.CANCELLED
