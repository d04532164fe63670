"""A worker's port for probes and scrapers, with real processes."""

from __future__ import annotations

import signal
import socket
import urllib.error
import urllib.request

from scenario_lab import Lab, until

from headrace.testing import FaultProxy


def get(address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def value(address: str, series: str) -> float:
    """Of one line of the metrics."""
    lines = get(f"{address}/metrics")[1].splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == series)


def test_probes_are_answered_from_the_start_to_the_end(lab: Lab) -> None:
    """Alive all the while; ready when jobs are taken, and not while quiet, nor when stopping."""
    worker = lab.start("--health-port", "0", "--processes", "1", wait=False)
    at = worker.wait_for(r"health and metrics on (http://127\.0\.0\.1:\d+)")[1]
    assert (200, "ok\n") == get(f"{at}/livez")
    until(lambda: get(f"{at}/readyz") == (200, "ok\n"), what="ready")
    worker.process.send_signal(signal.SIGTSTP)
    until(lambda: get(f"{at}/readyz") == (503, "quiet\n"), what="quiet")
    worker.process.send_signal(signal.SIGCONT)
    until(lambda: get(f"{at}/readyz") == (200, "ok\n"), what="ready again")
    lab.app.enqueue("ledger.waits_for", 1, str(lab.folder / "go"))
    until(lambda: value(at, "headrace_worker_running_jobs") == 1, what="a job that runs")
    worker.process.send_signal(signal.SIGTERM)
    until(lambda: get(f"{at}/readyz") == (503, "stopping\n"), what="stopping")
    assert (200, "ok\n") == get(f"{at}/livez")
    (lab.folder / "go").touch()
    assert 0 == worker.process.wait(30)


def test_metrics_tell_of_deaths_and_of_what_dead_processes_ran(lab: Lab) -> None:
    """A process that is renewed, and those that a job takes with it."""
    worker = lab.start("--health-port", "0", "--processes", "1", "--max-jobs", "2")
    at = worker.wait_for(r"health and metrics on (\S+)")[1]
    jobs = [lab.app.enqueue("ledger.work", number) for number in range(2)]
    assert [0, 1] == [job.result(timeout=30) for job in jobs]
    until(lambda: value(at, 'headrace_worker_child_deaths_total{how="recycled"}') == 1, what="a renewed process")
    assert 2 == value(at, 'headrace_worker_attempts_total{outcome="success"}')
    lab.app.enqueue("ledger.poison", 3)
    until(lambda: value(at, 'headrace_worker_child_deaths_total{how="crashed"}') == 3, what="three deaths")
    until(lambda: value(at, 'headrace_worker_children{state="ready"}') == 1, what="the next process")
    assert 0 == worker.terminate()


def test_a_server_that_is_away_makes_a_worker_unready_and_leaves_it_alive(lab: Lab) -> None:
    """A restart would mend nothing: else all workers would be restarted again and again while it is away."""
    with FaultProxy(lab.url) as proxy:
        lab.url = proxy.url
        worker = lab.start("--health-port", "0", "--processes", "1")
        at = worker.wait_for(r"health and metrics on (\S+)")[1]
        assert (200, "ok\n") == get(f"{at}/readyz")
        proxy.refuse()
        proxy.reset_all()
        until(lambda: get(f"{at}/readyz") == (503, "the server does not answer\n"), what="unready")
        assert (200, "ok\n") == get(f"{at}/livez")
        assert value(at, "headrace_server_errors_total") > 0
        proxy.accept()
        until(lambda: get(f"{at}/readyz") == (200, "ok\n"), what="ready again")
        assert 0 == worker.terminate()


def test_a_health_port_that_is_taken_ends_the_start(lab: Lab) -> None:
    """In one sentence, before the app is imported."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        worker = lab.start("--health-port", str(port), wait=False)
        assert 78 == worker.process.wait(30)
    assert f"--health-port: cannot listen on 127.0.0.1:{port}: " in worker.said
