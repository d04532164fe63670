"""Packages that were written for RQ, as PyPI has them, with `rq` pointed at the layer: each is set up as its page tells, and used.

They are in an environment of their own, in which there is no RQ. The tours are the programs in `ecosystem/`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from rq_bench import Bench

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
TOURS = Path(__file__).parent / "ecosystem"
WRITTEN_FOR_RQ = (
    "django-rq==4.2.0",
    "rq-scheduler==0.14.0",
    "rq-dashboard==0.9.0",
    "rq-exporter==3.1.0",
    "sentry-sdk==2.75.0",
)
WHAT_THEY_NEED = (
    "django>=5.2,<6", "flask", "arrow", "redis-sentinel-url", "six", "crontab", "python-dateutil", "freezegun",
    "prometheus-client", "certifi", "urllib3",
)  # fmt: skip
OURS = ("redis", "hiredis", "msgspec", "click", "cronsim")


@pytest.fixture(scope="session")
def python() -> str:
    """An interpreter that has them, and no RQ; made once. Skipped where pip cannot get them."""
    folder = ROOT / ".versus" / f"ecosystem-{sys.version_info.major}.{sys.version_info.minor}"
    found = folder / "bin" / "python"
    if not (folder / "made").exists():
        venv.create(folder, with_pip=True, clear=True)
        for words in (["--no-deps", *WRITTEN_FOR_RQ], [*WHAT_THEY_NEED, *OURS]):
            done = subprocess.run(
                [found, "-m", "pip", "install", "--quiet", *words], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                pytest.skip(f"pip cannot install {words}: {done.stderr.strip()[-300:]}")
        (folder / "made").touch()
    return str(found)


def tour(bench: Bench, python: str, program: str, *args: str) -> str:
    """Run one of the programs; what it printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HEADRACE", "DJANGO"))}
    done = subprocess.run(
        [python, TOURS / program, *args], cwd=TOURS, capture_output=True, text=True, timeout=240, check=False,
        env={
            **kept, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(TOURS)]), "REDISTOGO_URL": bench.url,
            "SITE_DATABASE": str(bench.folder / "site.sqlite3"), "SENTRY_LOG": str(bench.folder / "sentry.log"),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_django_rq_enqueues_works_and_shows_all_its_pages(bench: Bench, python: str) -> None:
    """Its decorator, its commands, the admin's pages of queues, registries, workers and jobs; requeue and delete."""
    told = tour(bench, python, "site_tour.py")
    assert "add 5 divide failed" in told and "traceback is shown True" in told
    pages = re.findall(r"^page (\S+) (\d+)$", told, re.MULTILINE)
    assert len(pages) == 14 and {code for _, code in pages} == {"200"}
    assert "requeue 302 queued" in told and "delete 302 0" in told
    assert re.search(r"\| default +\| +0 \| +0 \| +0 \| +1 \| +1 \| +0 \|", told), told


def test_rq_dashboard_shows_and_acts(bench: Bench, python: str) -> None:
    """Its pages, the data they read, and its buttons."""
    told = tour(bench, python, "dashboard_tour.py")
    pages = re.findall(r"^page (\S+) (\d+)$", told, re.MULTILINE)
    assert len(pages) == 5 and {code for _, code in pages} == {"200"}
    assert "queues [('default', 0, 1), ('low', 1, 0)]" in told and "failed ['BAD']" in told
    assert "job ('failed', True, 'default', 'tour_jobs.divide(1, 0)')" in told
    assert "requeue {'status': 'OK'} queued" in told and "delete {'status': 'OK'} 0" in told
    assert "empty {'status': 'OK'} 0" in told and "compact {'status': 'OK'}" in told


def test_rq_exporter_counts_jobs_and_workers(bench: Bench, python: str) -> None:
    """While a worker runs the job that asks."""
    told = tour(bench, python, "exporter_tour.py")
    assert re.search(r'^rq_workers\{name="scraped",queues="default",state="\w+"\} 1.0$', told, re.MULTILINE), told
    for line in ('"default",status="started"} 1.0', '"default",status="failed"} 1.0', '"low",status="queued"} 1.0'):
        assert f"rq_jobs{{queue={line}" in told


@pytest.mark.parametrize("worker", ["Worker", "SimpleWorker"])
def test_sentry_hears_of_a_job_that_failed_and_follows_its_trace(bench: Bench, python: str, worker: str) -> None:
    """One event for each job that has failed for good, none for a try; a run belongs to the trace of its enqueue."""
    told = tour(bench, python, "sentry_tour.py", worker)
    trace = told.split()[1]
    lines = [line.split() for line in (bench.folder / "sentry.log").read_text().splitlines()]
    events = [(words[1], words[2], words[4]) for words in lines if words[0] == "event"]
    assert events == [
        ("tour_jobs.divide", "['ZeroDivisionError']", "bad"),
        ("tour_jobs.divide", "['ZeroDivisionError']", "tries-again"),
    ]
    assert ["transaction", "tour_jobs.plain", "[]", "tour_jobs.plain", "good", trace] in lines
    assert 3 == sum(words[:2] == ["transaction", "tour_jobs.divide"] for words in lines)


def test_rq_scheduler_runs_jobs_at_their_time_and_again(bench: Bench, python: str) -> None:
    """Its `enqueue_in`, `schedule` with an interval and a count, `cron`, `cancel`, and its own process."""
    told = tour(bench, python, "scheduler_tour.py")
    assert "once 1 every 3 of 3 cancelled 0" in told, told


def test_rq_s_own_example_runs_unchanged(bench: Bench, python: str) -> None:
    """`examples/run_example.py` of RQ's repository, which PyPI's archive lacks: $RQ_REPOSITORY names a copy of it."""
    folder = Path(os.environ.get("RQ_REPOSITORY", "")) / "examples"
    if not (folder / "run_example.py").exists():
        pytest.skip("RQ_REPOSITORY names no copy of RQ's repository, and its archive on PyPI has no examples/")
    told = tour(bench, python, "example_tour.py", str(folder))
    assert "fib(33) = 5702887" in told and told.rstrip().endswith("Done"), told
