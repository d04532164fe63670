"""The app is found, or the message says what was looked at; deaths are told in words."""

import os
import signal
import sys
from pathlib import Path

import pytest

from headrace.errors import AppNotFound
from headrace.worker.loading import load_app
from headrace.worker.processes import bytes_text, memory_bytes, reap


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


APP = "from headrace import Headrace\napp = Headrace('redis://localhost:1/0', name='mine')\n"


@pytest.mark.parametrize("target", ["mine:app", "mine", "mine.py", "mine.py:app", "./mine.py"])
def test_an_app_is_found_by_module_and_by_path(folder: Path, target: str):
    """Each of the forms that the command line takes."""
    (folder / "mine.py").write_text(APP)
    assert load_app(target).name == "mine"


def test_a_file_of_a_package_is_imported_under_its_full_name(folder: Path):
    """Its tasks get the names that the rest of the project gives them."""
    (folder / "shop").mkdir()
    (folder / "shop/__init__.py").write_text("")
    (folder / "shop/jobs.py").write_text(APP)
    load_app("shop/jobs.py")
    assert "shop.jobs" in sys.modules


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("", "other:app", "no module 'other'"),
        ("", "other.py", "no file 'other.py'"),
        ("x = 1", "mine", "no Headrace object"),
        ("x = 1", "mine:x", "no Headrace object but int"),
        (APP.replace("app", "one") + APP.replace("app", "two"), "mine", "mine:one or mine:two"),
        (APP, "mine:ap", "objects in it: app"),
        ("import no_such_thing", "mine", "No module named 'no_such_thing'"),
        ("1 / 0", "mine", "ZeroDivisionError"),
        ("raise SystemExit(3)", "mine", "SystemExit: 3"),
    ],
)
def test_a_missing_app_is_told_with_what_was_looked_at(folder: Path, text: str, target: str, message: str):
    """The user reads what to change."""
    (folder / "mine.py").write_text(text)
    with pytest.raises(AppNotFound, match=message):
        load_app(target)


def test_a_death_is_told_with_its_signal_and_peak_memory():
    """What wait4 knows becomes the reason that a failed job keeps."""
    pid = os.fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    (death,) = [death for death in reap() if death.pid == pid]
    assert death.signal == signal.SIGKILL
    assert str(death).startswith("killed by SIGKILL (out of memory?), peak memory ")


def test_an_exit_code_is_told_as_one():
    """os._exit in a job is no signal."""
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    (death,) = [death for death in reap() if death.pid == pid]
    assert (death.signal, death.code) == (0, 7)
    assert str(death).startswith("exit code 7")


def test_memory_is_read_of_living_processes_only():
    """A process that is gone holds nothing."""
    assert memory_bytes(os.getpid()) > 1_000_000
    assert memory_bytes(1 << 30) == 0
    assert (bytes_text(512_000_000), bytes_text(1_900_000_000)) == ("512 MB", "1.9 GB")
