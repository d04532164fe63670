"""Functions that run by the clock."""

from __future__ import annotations

import signal
from datetime import UTC, datetime

import pytest
import rq_jobs
from rq_bench import HERE, Bench
from scenario_lab import until

from headrace.contrib.rq import Queue, cron
from headrace.contrib.rq.cron import CronJob, CronScheduler, create_cron, get_cron_job_ids
from headrace.contrib.rq.exceptions import DuplicateSchedulerError, SchedulerNotFound
from headrace.contrib.rq.webhook import Webhook


def test_several_schedulers_make_a_job_once(bench: Bench) -> None:
    """An interval runs as it is seen first; neither another scheduler nor a restart runs it again before its next time."""
    first, second = CronScheduler(bench.connection), CronScheduler(bench.connection)
    for scheduler in (first, second):
        scheduler.register(rq_jobs.note, "default", args=(1,), kwargs={"seconds": 0.0}, interval=3600, name="hourly")
        scheduler.register(rq_jobs.note, "default", args=(2,), cron="0 4 1 1 *", meta={"who": "cron"})
    (made,) = first.enqueue_jobs()
    assert made.name == "hourly" and not made.should_run() and made.latest_enqueue_time is not None
    assert first.enqueue_jobs() == second.enqueue_jobs() == []
    (job,) = Queue(connection=bench.connection).jobs
    assert job.args == (1,) and get_cron_job_ids("hourly", bench.connection) == [job.id] == made.get_job_ids(
        bench.connection
    )
    assert get_cron_job_ids("nobody", bench.connection) == [] and 0 < first.calculate_sleep_interval() <= 60
    assert bench.work() and bench.ran() == [1]


def test_a_scheduler_makes_the_jobs_of_its_file_while_it_runs(bench: Bench) -> None:
    """Other processes see it with its jobs; one of its name is refused; it ends as it is told to."""
    process = bench.start("cron_runner.py", str(HERE / "cron_here.py"))
    until(lambda: len(CronScheduler.all(bench.connection)) == 1, timeout_s=60)
    (found,) = CronScheduler.all(bench.connection)
    assert found == CronScheduler.fetch("clock", bench.connection) and found.pid == process.pid
    five, six = found.get_jobs()
    assert (five.name, five.interval, five.args) == ("five", 3600, (5,)) and six.job_options["meta"] == {"who": "cron"}
    assert found.last_heartbeat is not None and six.cron == "0 4 1 1 *"
    with pytest.raises(ValueError, match="no function"):
        five.enqueue(bench.connection)
    with pytest.raises(DuplicateSchedulerError, match="clock"):
        CronScheduler(bench.connection, name="clock").register_birth()
    until(lambda: Queue(connection=bench.connection).count == 1, timeout_s=30)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0 and CronScheduler.all(bench.connection) == []
    with pytest.raises(SchedulerNotFound, match="clock"):
        CronScheduler.fetch("clock", bench.connection)
    assert bench.work() and bench.ran() == [5]


def test_a_cron_job_says_when_it_runs_next(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """In local time, as RQ 3 does; what it tells of itself can be read again."""
    monkeypatch.setenv("TZ", "Asia/Ho_Chi_Minh")
    job = CronJob("default", rq_jobs.same, cron="0 7 * * *", webhooks=[Webhook("http://localhost", "failed")])
    following = job.get_next_enqueue_time()
    assert following.hour == 0 and following.minute == 0 and following > datetime.now(UTC)
    copy = CronJob.from_dict(job.to_dict())
    assert (copy.name, copy.cron, copy.func) == ("rq_jobs.same", "0 7 * * *", None)
    assert copy.next_enqueue_time == job.next_enqueue_time == following and copy.job_options == job.job_options
    assert job.enqueue(bench.connection).func_name == "rq_jobs.same"


def test_wrong_cron_jobs_are_refused(bench: Bench) -> None:
    """RQ's exception types, where they are written."""
    with pytest.raises(ValueError, match="interval or cron"):
        CronJob("default", rq_jobs.same)
    with pytest.raises(ValueError, match="not both"):
        CronJob("default", rq_jobs.same, interval=5, cron="* * * * *")
    with pytest.raises(ValueError, match="func"):
        CronJob("default", interval=5)
    with pytest.raises(ValueError, match=r"cron job rq_jobs\.same"):
        CronJob("default", rq_jobs.same, cron="every day")
    scheduler = CronScheduler(bench.connection)
    with pytest.raises(FileNotFoundError, match="nothing_here"):
        scheduler.load_config_from_file("nothing_here.py")
    with pytest.raises(ImportError, match="no_such_module"):
        scheduler.load_config_from_file("no_such_module")


def test_what_a_process_has_registered_becomes_a_scheduler(bench: Bench) -> None:
    """`create_cron` takes it; two of one function get names of their own."""
    for number in (1, 2):
        cron.register(rq_jobs.same, "default", args=(number,), interval=60)
    found = create_cron(bench.connection)
    assert [job.args for job in found.get_jobs()] == [(1,), (2,)] and not create_cron(bench.connection).get_jobs()
    assert len(found.enqueue_jobs()) == 2 and Queue(connection=bench.connection).count == 2
