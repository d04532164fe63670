"""`headrace rq`, as service files and people call it."""

from __future__ import annotations

from pathlib import Path

import pytest
import rq_jobs
from rq_bench import HERE, Bench

from headrace.cli.rq_enqueue import read_arguments
from headrace.contrib.rq import Queue
from headrace.contrib.rq.job import Job
from headrace.contrib.rq.settings import connect


def test_its_commands_do_what_rq_s_do(bench: Bench) -> None:
    """A burst worker with a path; info; failed jobs are requeued, others are named; a queue is emptied."""
    high, low = Queue("high", bench.connection), Queue("low", bench.connection)
    good, bad = high.enqueue(rq_jobs.note, 5), low.enqueue(rq_jobs.divide, 1, 0)
    pid_file = bench.folder / "pid"
    handler = ["--exception-handler", "rq_jobs.handle"]
    done = bench.rq("worker", "high", "low", "--burst", "-P", str(HERE), "-n", "one", "--pid", str(pid_file), *handler)
    assert done.returncode == 0, done.stderr
    assert bench.ran() == [5, 3001] and good.is_finished and bad.is_failed and int(pid_file.read_text())
    assert "queue low 0, 0 executing, 0 finished, 1 failed" in bench.rq("info", "--raw", "-Q").stdout.splitlines()
    shown = bench.rq("info").stdout
    assert "high         | 0, 0 executing, 1 finished, 0 failed" in shown and "0 workers, 2 queues" in shown
    done = bench.rq("requeue", "--queue", "low", bad.id, good.id)
    assert (done.returncode, done.stdout.split()) == (3, [good.id]) and bad.is_queued
    assert bench.rq("empty").returncode == 2
    assert bench.rq("empty", "low").stdout == "1 jobs removed from low queue\n" and low.is_empty()


def test_a_settings_module_says_where_and_what(bench: Bench) -> None:
    """REDIS_URL, QUEUES, NAME and DICT_CONFIG; a class of the user's own, by option or variable."""
    job = Queue("mine", bench.connection).enqueue(rq_jobs.note, 7)
    words = ["worker", "-b", "-c", "rq_settings_here", "-P", str(HERE), "--max-jobs", "1"]
    done = bench.rq(*words, RQ_REDIS_URL="", RQ_WORKER_CLASS="rq.SimpleWorker")
    assert done.returncode == 0 and job.is_finished, done.stderr
    assert "formatted Worker named: started" in done.stdout and "prefork" in done.stderr
    assert "cannot be imported" in bench.rq("info", "-c", "no_settings").stderr
    assert "--worker-class" in bench.rq("info", "-w", "rq_jobs.Nothing", "-P", str(HERE)).stderr


def test_workers_are_suspended_and_resumed(bench: Bench) -> None:
    """No worker starts meanwhile, and it says why."""
    assert bench.rq("suspend", "--duration", "600").returncode == 0
    done = bench.rq("worker", "--burst")
    assert done.returncode == 1 and "headrace rq resume" in done.stderr
    assert bench.rq("resume").returncode == 0 and bench.rq("worker", "--burst").returncode == 0


def test_a_call_is_enqueued_with_rqs_arguments(bench: Bench) -> None:
    """Its id is printed; options are those of `enqueue`; nonsense is refused in words."""
    words = ["rq_jobs.same", "text", "--job-id", "by-hand", "-q", "low", "--timeout", "1m", "--retry-max", "2"]
    assert bench.rq("enqueue", *words).stdout == "by-hand\n"
    job = Job.fetch("by-hand", bench.connection)
    assert (job.args, job.timeout, job.retries_left, job.origin) == (("text",), 60, 2, "low")
    later = bench.rq("enqueue", "rq_jobs.same", "n:=3", "--schedule-in", "1h").stdout.strip()
    assert Job.fetch(later, bench.connection).is_scheduled and Job.fetch(later, bench.connection).kwargs == {"n": 3}
    for wrong in (["--timeout", "soon"], ["n:={"], ["--schedule-at", "today"], ["n=1", "n=2"]):
        assert bench.rq("enqueue", "rq_jobs.same", *wrong).returncode == 2


def test_arguments_are_texts_json_literals_and_files(tmp_path: Path) -> None:
    """As `rq enqueue` reads them."""
    (tmp_path / "data").write_text("[1]")
    words = ("text", ':{"a": 1}', "%(1, 2)", f":@{tmp_path / 'data'}", "k=v", "n:=3", "t%={1}", "=odd")
    assert read_arguments(words) == (["text", {"a": 1}, (1, 2), [1], "=odd"], {"k": "v", "n": 3, "t": {1}})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"REDIS_HOST": "h", "REDIS_PORT": "7", "REDIS_DB": "2", "REDIS_PASSWORD": "p"}, ("h", 7, 2, "p")),
        ({"REDIS_URL": "redis://:q@there:8/3"}, ("there", 8, 3, "q")),
        ({}, ("localhost", 6379, 0, None)),
    ],
)
def test_rqs_settings_name_a_server(settings: dict[str, str], expected: tuple[object, ...]) -> None:
    """Of a module, or of the environment."""
    given = connect(settings).connection_pool.connection_kwargs
    assert tuple(given.get(name) for name in ("host", "port", "db", "password")) == expected
    secure = connect({**settings, "REDIS_SSL": "yes"}) if "REDIS_URL" not in settings else None
    assert secure is None or "ssl" in secure.connection_pool.connection_class.__name__.lower()
    with pytest.raises(ValueError, match="REDIS_SSL"):
        connect({"REDIS_SSL": "maybe"})
