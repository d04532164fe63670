"""`headrace top`: what keys mean, on a real terminal and in a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cli_kit import documents, lines
from headrace.cli.top_view import Act, Look, View, span
from headrace.core.record import State
from headrace.engine import admin
from headrace.engine.keys import queue_keys

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()=>][0-9A-Z]?")


class Terminal:
    """A program on a terminal of 120 x 30; what it wrote since the last key, without its codes."""

    def __init__(self, fd: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._fd = fd
        self._text = ""

    def wait_for(self, text: str) -> None:
        """Until it has written that."""
        ends = time.monotonic() + 60
        while text not in CODES.sub("", self._text):
            assert time.monotonic() < ends, f"no {text!r} in:\n{CODES.sub('', self._text)[-3000:]}"
            assert self._read(), f"it ended without {text!r}:\n{CODES.sub('', self._text)[-3000:]}"

    def press(self, keys: str) -> None:
        self._text = ""
        os.write(self._fd, keys.encode())

    def wait_for_end(self) -> int:
        """Read on, or it could not write its last, until it has ended; its exit code."""
        while self._read():
            continue
        return self.process.wait(30)

    def _read(self) -> bool:
        """False: nobody is there to write any more (EIO on Linux)."""
        if not select.select([self._fd], [], [], 60)[0]:
            return False
        try:
            data = os.read(self._fd, 1 << 16)
        except OSError:
            return False
        self._text += data.decode("utf8", "replace")
        return bool(data)


@contextmanager
def terminal(*words: str, url: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    env = {**os.environ, "HEADRACE_URL": url, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONWARNINGS": "error"}
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        env.pop(name, None)
    command = [sys.executable, "-m", "headrace", *words]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True)
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(30)
        os.close(ours)


def test_keys_show_filter_and_act_until_q_is_pressed(url, app):
    """Queues first; p pauses the chosen one; the jobs' tab retries and cancels, with a second press; / filters; q restores the terminal."""
    app.queue("mail").enqueue("mail.send", 1)
    job = app.queue("video").enqueue("video.cut", 2)
    with terminal("top", "--interval", "0.2s", url=url) as shown:
        shown.wait_for("mail")
        shown.press("p")
        shown.wait_for("queue mail is paused")
        assert "paused in headrace top" == app.client.run(admin.count_jobs(queue_keys("mail"))).paused
        shown.press("p")
        shown.wait_for("queue mail goes on")
        shown.press("2")
        shown.wait_for("no workers here")
        shown.press("3")
        shown.wait_for("video.cut")
        shown.press("/video\r")
        shown.wait_for("filter: video")
        shown.press("c")
        shown.wait_for(f"cancel job {job.id}? c again does it")
        shown.press("c")
        shown.wait_for(f"job {job.id} is cancelled")
        assert State.CANCELLED is job.refresh().state
        shown.press("q")
        assert 0 == shown.wait_for_end()


def test_top_goes_on_while_the_server_is_away(url, app):
    """It says so, keeps what it knew, and shows what is new afterwards."""
    from headrace.testing import FaultProxy

    app.queue("mail").enqueue("mail.send", 1)
    with FaultProxy(url) as proxy, terminal("top", "--interval", "0.2s", url=proxy.url) as shown:
        shown.wait_for("mail")
        proxy.refuse()
        proxy.reset_all()
        shown.press("")
        shown.wait_for("trying again")
        proxy.accept()
        app.queue("video").enqueue("video.cut", 2)
        shown.press("")
        shown.wait_for("video")
        shown.press("q")
        assert 0 == shown.wait_for_end()


def test_in_a_pipe_it_is_lines(run, app):
    """A line a queue at each look; as JSON with names."""
    app.queue("mail").enqueue("mail.send", 1)
    plain = run("top", "--looks", "2", "--interval", "0.1s")
    assert plain.exit_code == 0, plain.output
    assert [["mail", "1", "0"]] * 2 == [row[1:4] for row in lines(plain)]
    (told,) = documents(run("top", "--looks", "1", "--json"))
    assert ("mail", 1, 0, None) == (told["queue"], told["queued"], told["workers"], told["paused"])
    assert 2 == run("top", "--interval", "0.01s").exit_code


@pytest.fixture
def look(app) -> Look:
    app.queue("mail").enqueue("mail.send", 1)
    app.queue("video").enqueue("video.cut", 2)
    counts = [app.client.run(admin.count_jobs(queue_keys(name))) for name in ("mail", "video")]
    jobs = [
        row
        for name in ("mail", "video")
        for row in app.client.run(admin.list_jobs(queue_keys(name), (State.QUEUED,))).rows
    ]
    return Look(counts, [], jobs, {"mail": 75.0}, {}, counts[0].server_ms)


def test_a_key_that_cannot_be_meant_does_nothing(look):
    """No row, another tab's key, a job that has not ended; the choice stays within the rows."""
    view = View()
    assert [None] * 4 == [view.press(key, look) for key in ("r", "c", "x", "down")]
    assert ("video", 1) == (view.rows(look)[view.row][0], view.row)
    view.press("down", look)
    assert Act("pause", "video") == view.press("p", look)
    view.press("3", look)
    assert None is view.press("r", look) and "there is nothing to retry" in view.told
    for key in "/nothing\r":
        view.press(key, look)
    assert [] == view.rows(look) and None is view.press("c", look)
    view.press("\x1b", look)
    assert 2 == len(view.rows(look))


def test_a_cancel_is_asked_for_twice_in_a_row(look):
    """Another key between them takes it back."""
    view = View(tab="jobs")
    assert None is view.press("c", look)
    view.press("down", look)
    assert None is view.press("c", look)
    assert Act("cancel", "video", look.jobs[1].id) == view.press("c", look)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.2 s"), (75, "75 s"), (600, "10 min"), (9000, "2 h"), (259_200, "3 d")]
)
def test_spans_are_read_at_a_glance(seconds, text):
    assert text == span(seconds)
