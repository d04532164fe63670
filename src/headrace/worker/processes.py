"""What the worker asks of the operating system about processes: adopt, die with the parent, reap, measure, stop.

On Linux through prctl(2) and /proc. Elsewhere the calls that do not exist do nothing and say so by their result.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from dataclasses import dataclass

IS_LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def _prctl(option: int, value: int) -> bool:
    if not IS_LINUX:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
    return True


def adopt_orphans() -> bool:
    """Become the parent of descendants whose parent ends (`PR_SET_CHILD_SUBREAPER`). False: not on this system."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> bool:
    """Ask for SIGKILL when the parent ends. The caller checks its parent again after it: it may have ended before."""
    return _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended. `peak_kib`: the most memory it held; 0 when unknown."""

    pid: int
    status: int
    peak_kib: int

    @property
    def signal(self) -> int:
        return os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else 0

    @property
    def code(self) -> int:
        return os.WEXITSTATUS(self.status) if os.WIFEXITED(self.status) else -1

    def __str__(self) -> str:
        memory = f", peak memory {bytes_text(self.peak_kib * 1024)}" if self.peak_kib else ""
        if not self.signal:
            return f"exit code {self.code}{memory}"
        name = signal_name(self.signal)
        hint = " (out of memory?)" if self.signal == signal.SIGKILL else ""
        return f"killed by {name}{hint}{memory}"


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def reap() -> list[Death]:
    """Collect every child of this process that has ended, without waiting: also those it adopted."""
    deaths: list[Death] = []
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return deaths
        if pid == 0:
            return deaths
        deaths.append(Death(pid, status, usage.ru_maxrss if IS_LINUX else usage.ru_maxrss // 1024))


def send_signal(pid: int, number: int) -> bool:
    """False: there is no such process any more."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def kill_group(pid: int) -> None:
    """SIGKILL the process group of a child that has ended: what its jobs had started and left."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def memory_bytes(pid: int) -> int:
    """The memory a process holds now; 0 when it is gone, or the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def process_state(pid: int) -> str:
    """The letter of proc(5): R, S, D (cannot be killed now), T (stopped), Z …; "" when unknown."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0].decode()
    except OSError:
        return ""


def bytes_text(count: int) -> str:
    """A size for people: 512 MB, 1.9 GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
