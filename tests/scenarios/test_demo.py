"""`headrace demo` and `headrace dev` as their users run them: what they promise, and that they leave nothing behind."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
from scenario_lab import until

from headrace.demo.pages import count_words, make_pages
from headrace.engine.call import command
from headrace.engine.clients import ServerConfig, SyncClient


@contextmanager
def start(*words, temporary, **environment):
    """A command with a temporary folder of its own, so that what it leaves there is seen. Ends with the block."""
    names = {**os.environ, "TMPDIR": str(temporary), **environment}
    if "HEADRACE_URL" not in environment:
        names.pop("HEADRACE_URL", None)
    with subprocess.Popen(
        [sys.executable, "-m", "headrace", *words],
        env=names, cwd=temporary, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def page_of(address):
    """What stands there; nothing while nobody listens."""
    try:
        with urlopen(address) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def read_until(process, pattern, timeout_s=60):
    """What it says up to the line that matches, which is the last; when none comes in time, the process is killed."""
    lines = []
    alarm = threading.Timer(timeout_s, process.kill)
    alarm.start()
    try:
        for line in process.stderr:
            lines.append(line)
            if re.search(pattern, line):
                return lines
    finally:
        alarm.cancel()
    raise AssertionError(f"no {pattern!r} within {timeout_s} s in:\n{''.join(lines)}")


def keys_left(url):
    client = SyncClient(ServerConfig(url))
    found = client.run(command("KEYS", "*", decode=list))
    client.close()
    return found


def still_running(family: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended. One that has, and that init has yet to collect, is no process any more."""
    return [member for member in family if member.is_running() and member.status() != psutil.STATUS_ZOMBIE]


def test_the_demo_loses_nothing_and_leaves_nothing(tmp_path):
    """Every page is counted right though a process is killed; no process, port or file stays."""
    with start("demo", "--jobs", "120", temporary=tmp_path) as process:
        told = read_until(process, "POST /count")
        family = psutil.Process(process.pid).children(recursive=True)
        out, rest = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert re.search(r"process \d+ was killed with SIGKILL .* its job ran again", rest)
    assert "120 enqueued, 120 ran, 1 ran again, 0 lost, 0 failed; 120 of 120 counts are right" in rest
    rows = [line.split("\t") for line in out.splitlines()]
    assert len(rows) == len(make_pages())
    assert all(row[3] == row[4] and row[5] == "yes" for row in rows)
    assert family
    assert still_running(family) == []
    assert list(tmp_path.iterdir()) == []
    url = re.search(r"127\.0\.0\.1:\d+", "".join(told))
    ping = subprocess.run([sys.executable, "-m", "headrace", "ping", "--url", f"redis://{url[0]}"], capture_output=True)
    assert ping.returncode == 69


def test_the_demo_on_a_server_of_your_own_removes_its_keys(url, tmp_path):
    """HEADRACE_URL points it there; what else is there is not touched."""
    with start("demo", "--jobs", "48", "-q", "--json", temporary=tmp_path, HEADRACE_URL=url) as process:
        out, rest = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert all(json.loads(line)["right"] for line in out.splitlines())
    assert keys_left(url) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_demo_that_is_stopped_midway_leaves_nothing(url, tmp_path, number, code):
    """Ctrl-C and SIGTERM: its processes end, its keys and files are removed."""
    with start("demo", "--jobs", "6000", temporary=tmp_path, HEADRACE_URL=url) as process:
        read_until(process, r"high [1-9]")
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        _, rest = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in rest
    assert family
    assert still_running(family) == []
    assert keys_left(url) == []
    assert list(tmp_path.iterdir()) == []


def test_the_words_of_a_page_are_those_that_its_author_wrote():
    """The count from the HTML is the count of the sentences; the pages are the same on every run."""
    pages = make_pages()
    assert [count_words(page.html) for page in pages] == [page.words for page in pages]
    assert pages == make_pages()
    assert {page.language for page in pages} == {"en", "vi"}
    assert len({page.path for page in pages}) == len(pages) >= 36


APP = """\
from headrace import Headrace

app = Headrace()


@app.task
def resize(path: str, width: int = 800) -> str:
    return f"{path}@{width}"


if __name__ == "__main__":
    job = resize.enqueue("cat.png", width=400)
    print(job.result(timeout=20))
"""


def test_dev_runs_an_app_finds_programs_of_its_folder_and_reloads(tmp_path):
    """A second program needs no URL; an edit counts at once; jobs are kept; .headrace/ hides itself from git."""
    file = tmp_path / "app.py"
    file.write_text(APP)
    names = {name: value for name, value in os.environ.items() if name != "HEADRACE_URL"}

    def run_program(*, fails: bool = False) -> str:
        done = subprocess.run([sys.executable, "app.py"], cwd=tmp_path, env=names, capture_output=True, text=True)
        assert (done.returncode != 0) == fails, done.stderr
        return done.stdout

    note: Path = tmp_path / ".headrace" / "dev.json"
    with start("dev", "app.py", "--port", "0", temporary=tmp_path) as process:
        read_until(process, r"valkey +127\.0\.0\.1:\d+ +embedded, data in \.headrace/")
        dashboard = read_until(process, r"dashboard +http://127\.0\.0\.1:\d+/$")[-1].split()[-1]
        read_until(process, r"tasks: app\.resize$")
        until(lambda: '<strong class="badge">dev</strong>' in page_of(dashboard))
        until(note.exists)
        family = psutil.Process(process.pid).children(recursive=True)
        assert run_program() == "cat.png@400\n"
        file.write_text(APP.replace('f"{path}@{width}"', 'f"{path}, {width} wide"'))
        read_until(process, "reloaded")
        until(lambda: run_program() == "cat.png, 400 wide\n")
        file.write_text(APP.replace('return f"{path}@{width}"', 'raise LookupError(f"no {path}")'))
        read_until(process, "reloaded")
        run_program(fails=True)
        told = read_until(process, r"LookupError: no cat\.png")
        assert any(re.search(r"app\.resize \S+ failed in .*: LookupError", line) for line in told), told
        assert any(re.search(r'    File ".*app\.py", line \d+, in resize', line) for line in told), told
        again = subprocess.run(
            [sys.executable, "-m", "headrace", "dev"], cwd=tmp_path, env=names, capture_output=True, text=True
        )
        assert again.returncode == 2
        assert "already" in again.stderr
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=30)
    assert process.returncode == 0, rest
    assert still_running(family) == []
    assert not note.exists()
    assert (tmp_path / ".headrace" / ".gitignore").read_text() == "*\n"
