"""A worker as a service of systemd: what it says on the socket that it is given."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from scenario_lab import Lab


class Manager:
    """The other end: hears what is said, in order."""

    def __init__(self, path: Path) -> None:
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(30)

    def hear(self, *wanted: str) -> None:
        """Wait for messages that begin so, in that order, whatever comes between them."""
        for start in wanted:
            while True:
                self.heard.append(self._socket.recv(4096).decode())
                if self.heard[-1].startswith(start):
                    break

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    found = Manager(tmp_path / "notify")
    yield found
    found.close()


def test_a_service_says_ready_alive_reloading_and_stopping(
    lab: Lab, manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ready only when it takes jobs; alive from the loop that supervises; the status tells how many run."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    worker = lab.start("--processes", "1")
    manager.hear("READY=1", "STATUS=0 running, 1 place", "WATCHDOG=1", "WATCHDOG=1")
    assert 1 == manager.heard.count("READY=1")
    lab.app.enqueue("ledger.waits_for", 1, str(tmp_path / "go"))
    manager.hear("STATUS=1 running, 1 place")
    (tmp_path / "go").touch()
    worker.process.send_signal(signal.SIGHUP)
    manager.hear("RELOADING=1\nMONOTONIC_USEC=", "READY=1")
    worker.process.send_signal(signal.SIGTERM)
    manager.hear("STOPPING=1")
    assert 0 == worker.process.wait(30)


def test_what_is_for_the_supervisor_is_not_seen_by_jobs(
    lab: Lab, manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library in a job that looks for the socket would speak for the whole service."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    worker = lab.start("--processes", "1")
    manager.hear("READY=1")
    lab.app.enqueue("ledger.work", 7).result(timeout=30)
    assert "NOTIFY_SOCKET" not in psutil.Process(lab.pid_of(7)).environ()
    assert 0 == worker.terminate()
