"""`headrace metrics`: once, and for a scraper."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request

import pytest


def test_metrics_are_printed_as_text(run, app):
    """Prometheus text, with the queues that there are; nothing else on stdout."""
    app.queue("mail").enqueue("mail.send", 1)
    done = run("metrics")
    assert done.exit_code == 0, done.output
    assert 'headrace_queue_jobs{queue="mail",state="queued"} 1' in done.stdout.splitlines()
    assert all(re.match(r"# (HELP|TYPE) |headrace_\w+(\{.*\})? \S+$", line) for line in done.stdout.splitlines())


@pytest.mark.parametrize("place", ["x", "1:", "127.0.0.1:99999", "-1"])
def test_a_place_that_is_none_is_refused(run, place):
    """With what is expected."""
    done = run("metrics", f"--serve={place}")
    assert done.exit_code == 2
    assert "expected PORT or HOST:PORT" in done.stderr


def test_a_scraper_is_answered_until_the_end(url, app):
    """Also after the server was asked once; Ctrl-C ends it without a traceback."""
    app.queue("mail").enqueue("mail.send", 1)
    command = [sys.executable, "-m", "headrace", "metrics", "--serve", "0", "--url", url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = re.findall(r"http://127\.0\.0\.1:\d+", process.stderr.readline())[0]
        for path, text in (("/metrics", "headrace_queue_jobs"), ("/readyz", "ok"), ("/livez", "ok")):
            with urllib.request.urlopen(address + path, timeout=10) as answer:
                assert text in answer.read().decode()
        process.send_signal(signal.SIGINT)
        assert "" == process.stderr.read()
        assert 130 == process.wait(20)
