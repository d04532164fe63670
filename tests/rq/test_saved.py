"""A job that is only saved, as schedulers outside of RQ do: it waits for somebody to enqueue it, again and again."""

from __future__ import annotations

import pytest
import rq_jobs
from rq_bench import Bench

from headrace.contrib.rq import Queue
from headrace.contrib.rq.job import Job, JobStatus


def test_a_saved_job_runs_when_it_is_enqueued_and_each_time(bench: Bench) -> None:
    """Nobody runs it before; it keeps its id; the meta it has then is stored, and seen by the run."""
    queue = Queue(connection=bench.connection)
    job = Job.create(rq_jobs.about_me, connection=bench.connection, id="again", status=JobStatus.SCHEDULED)
    job.origin = queue.name
    job.meta["who"] = "first"
    job.save()
    fetched = Job.fetch("again", bench.connection)
    assert fetched.is_scheduled and fetched.meta == {"who": "first"} and not bench.work()
    for who in ("second", "third"):
        fetched = Job.fetch("again", bench.connection)
        fetched.meta["who"] = who
        assert queue.enqueue_job(fetched).is_queued
        assert bench.work()
        fetched.refresh()
        assert fetched.return_value() == ("again", who)


def test_a_saved_job_that_still_waits_is_not_enqueued_twice(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """It is said, and does no harm."""
    queue = Queue(connection=bench.connection)
    job = Job.create(rq_jobs.note, (1,), connection=bench.connection)
    job.origin = queue.name
    job.save()
    queue.enqueue_job(job)
    queue.enqueue_job(Job.fetch(job.id, bench.connection))
    assert "is queued still" in caplog.text
    assert bench.work() and bench.ran() == [1]
