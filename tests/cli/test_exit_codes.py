"""How commands end as processes: the code, one sentence on stderr, nothing on stdout, no traceback."""

import os
import signal
import subprocess
import sys

import pytest

from headrace.engine.call import command
from headrace.engine.clients import ServerConfig, SyncClient
from headrace.engine.keys import queue_keys
from headrace.server import free_port


def headrace(*args, url=None, **options):
    environment = {**os.environ, **({"HEADRACE_URL": url} if url else {})}
    words = [sys.executable, "-m", "headrace", *args]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, **options)


@pytest.mark.parametrize("words", [["ping"], ["queue", "ls"], ["enqueue", "t"], ["status"], ["check"], ["job", "ls"]])
def test_no_server_is_one_sentence_and_69(words):
    """What to do is in it; the port that nobody listens on too."""
    port = free_port()
    result = headrace(*words, url=f"redis://127.0.0.1:{port}/0")
    assert (result.returncode, result.stdout) == (69, "")
    assert result.stderr.startswith("headrace: ")
    assert str(port) in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_worker_without_a_server_ends_with_69(tmp_path):
    """One sentence there, too."""
    (tmp_path / "jobs_here.py").write_text("from headrace import Headrace\napp = Headrace()\n")
    result = headrace("worker", "-A", "jobs_here:app", url=f"redis://127.0.0.1:{free_port()}/0", cwd=tmp_path)
    assert result.returncode == 69
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["bogus"], "no command 'bogus'"),
        (["queue", "purge"], "Missing argument"),
        (["enqueue", "t", "--delay", "soon"], "no duration"),
        (["enqueue", "t", "--delay", "1m", "--at", "2030-01-01T00:00Z"], "delay"),
        (["enqueue", "t", "k:=nope"], "no JSON"),
        (["worker"], "which app?"),
        (["worker", "-A", "app:app", "--slots", "3"], "--processes"),
        (["worker", "-A", "app:app", "--weighted", "high"], "not NAME=SHARE"),
        (["worker", "-A", "no_such_module:app"], "no module 'no_such_module'"),
        (["dev", "nowhere.py"], "no nowhere.py in"),
        (["dev"], "no app.py"),
        (["ping", "--url", "http://localhost"], "no server URL"),
    ],
)
def test_wrong_use_is_2_and_says_what_is_right(words, told, url, tmp_path):
    """Nothing was done."""
    result = headrace(*words, url=url, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert told in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_password_is_one_sentence(url):
    """And the password is not in it."""
    result = headrace("queue", "ls", url=url.replace("redis://", "redis://:sesame@"))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "sesame" not in result.stderr


def test_ctrl_c_while_waiting_is_130(url):
    """Without a traceback."""
    job_id = headrace("enqueue", "t", url=url).stdout.strip()
    words = [sys.executable, "-m", "headrace", "job", "wait", job_id]
    process = subprocess.Popen(words, env={**os.environ, "HEADRACE_URL": url}, stderr=subprocess.PIPE, text=True)
    client = SyncClient(ServerConfig(url))
    watched = queue_keys("default").watched
    while not client.run(command("HEXISTS", watched, job_id, key=watched, decode=bool)):
        assert process.poll() is None
    client.close()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in said


def test_a_reader_that_has_enough_is_no_error(url):
    """`headrace job ls | head -1`: no traceback, no complaint."""
    for _ in range(3):
        headrace("enqueue", "t", url=url)
    shell = f"{sys.executable} -m headrace job ls | true"
    result = subprocess.run(shell, shell=True, env={**os.environ, "HEADRACE_URL": url}, capture_output=True, text=True)
    assert result.stderr == ""


def test_the_help_page_loads_none_of_the_commands():
    """It must come at once."""
    code = (
        "import sys; sys.argv = ['headrace', '--help']\nfrom headrace.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith('headrace.cli.')], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "headrace.cli.job" not in result.stderr
    assert "headrace.cli.main" in result.stderr


def test_the_server_command_ends_with_its_process(tmp_path):
    """Ctrl-C: code 0, and nobody listens any more."""
    words = [sys.executable, "-m", "headrace", "server"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert headrace("ping", url=url).returncode == 0
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert headrace("ping", url=url).returncode == 69
