"""What the supervisor decides: when a sweep is safe, which exit code a worker that cannot start has."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.worker.config import WorkerConfig, decode_config, encode_config
from headrace.worker.tend import SweepGuard

LEASE_MS = 10_000


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def watch(guard: SweepGuard, clock: Clock, seconds: int, server_ms: int) -> int:
    """Let the server answer once a second; its clock afterwards."""
    for _ in range(seconds):
        clock.now_s += 1
        server_ms += 1_000
        guard.saw(server_ms)
    return server_ms


def test_a_sweep_waits_for_one_full_lease_of_a_reachable_server():
    """Whoever has just started must give living workers the time to renew."""
    clock = Clock()
    guard = SweepGuard(LEASE_MS, clock)
    server_ms = watch(guard, clock, 10, 5_000_000)
    assert not guard.may_sweep
    watch(guard, clock, 1, server_ms)
    assert guard.may_sweep


@pytest.mark.parametrize("jump_ms", [3_600_000, -600_000, 1_500])
def test_a_jump_of_the_servers_clock_puts_the_sweep_off(jump_ms: int):
    """Every lease seems to have ended, and none has."""
    clock = Clock()
    guard = SweepGuard(LEASE_MS, clock)
    server_ms = watch(guard, clock, 11, 5_000_000)
    server_ms = watch(guard, clock, 1, server_ms + jump_ms)
    assert not guard.may_sweep
    watch(guard, clock, 10, server_ms)
    assert guard.may_sweep


def test_a_server_that_was_away_puts_the_sweep_off():
    """Nobody could renew while it was."""
    clock = Clock()
    guard = SweepGuard(LEASE_MS, clock)
    server_ms = watch(guard, clock, 11, 5_000_000)
    guard.lost()
    watch(guard, clock, 1, server_ms)
    assert not guard.may_sweep


def test_a_supervisor_that_was_paused_sweeps_nobody():
    """After SIGSTOP or a sleeping laptop its last look is too old."""
    clock = Clock()
    guard = SweepGuard(LEASE_MS, clock)
    server_ms = watch(guard, clock, 11, 5_000_000)
    clock.now_s += 6
    assert not guard.may_sweep
    guard.saw(server_ms + 6_000)
    assert not guard.may_sweep


def test_a_sweep_says_until_when_it_is_right():
    """The server's clock may jump, or the call lie in a stopped server, between the last look and the sweep itself."""
    clock = Clock()
    guard = SweepGuard(LEASE_MS, clock)
    assert 0 == guard.sweep_until_ms()
    server_ms = watch(guard, clock, 11, 5_000_000)
    clock.now_s += 2
    assert server_ms + 2_000 < guard.sweep_until_ms() <= server_ms + 2_000 + LEASE_MS / 4


def test_the_shorter_the_lease_the_smaller_the_jump_that_counts():
    """A jump of 0.9 s leaves a lease of 10 s whole, and ends one of 1 s."""
    clock = Clock()
    guards = {lease_ms: SweepGuard(lease_ms, clock) for lease_ms in (1_000, 10_000)}
    server_ms = 5_000_000
    for _ in range(60):
        clock.now_s += 0.25
        server_ms += 250
        for guard in guards.values():
            guard.saw(server_ms)
    assert [True, True] == [guard.may_sweep for guard in guards.values()]
    clock.now_s += 0.25
    for guard in guards.values():
        guard.saw(server_ms + 1_150)
    assert [False, True] == [guard.may_sweep for guard in guards.values()]


def test_a_config_goes_through_the_socket_whole():
    """What the supervisor was asked is what the children get."""
    config = WorkerConfig(app_path="a:b", worker_id="w", weights={"high": 6}, queues=["high"], max_jobs=3)
    assert decode_config(encode_config(config)) == config


APP = "from headrace import Headrace\napp = Headrace('redis://localhost:1/0')\n"
THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, name='ticker', daemon=True).start()\n"
RUN = "import sys; from headrace.worker.config import decode_config; from headrace.worker.supervisor import run; "
RUN += "sys.exit(run(decode_config(bytes.fromhex(sys.argv[1]))))"


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (APP, 69, "no server answers at redis://localhost:1/0"),
        ("", 2, "no Headrace object"),
        ("1 / 0", 2, "ZeroDivisionError"),
        ("import os; os._exit(3)", 70, "ended before it had imported it"),
        (APP + THREAD, 78, r"\(ticker\).*--start spawn"),
        # It starts itself anew in each process that is forked.
        (APP + THREAD.replace("ticker", "OtelBatchSpanRecordProcessor"), 69, "no server answers"),
    ],
)
def test_a_worker_that_cannot_start_says_why_in_its_exit_code_and_one_message(
    tmp_path: Path, text: str, code: int, message: str
):
    """Service managers read the code, people the message; nothing is left running."""
    (tmp_path / "mine.py").write_text(text)
    config = encode_config(WorkerConfig(app_path="mine", worker_id="w")).hex()
    done = subprocess.run(
        [sys.executable, "-c", RUN, config],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert re.search(message, done.stderr), done.stderr
