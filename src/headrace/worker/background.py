"""A whole `headrace worker`, or another of our programs, as a child process, for `headrace dev` and `headrace demo`: it ends with its starter.

Not the supervisor in this process: that one collects all its children, and the embedded server is one too.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

_PR_SET_PDEATHSIG = 1


@contextmanager
def background_worker(
    arguments: Sequence[str], *, environment: Mapping[str, str], output: IO[bytes] | None, stops_within_s: float
) -> Iterator[subprocess.Popen[bytes]]:
    """Start `headrace worker ARGUMENTS`: as `background_program`."""
    program = ["worker", *arguments]
    with background_program(program, environment=environment, output=output, stops_within_s=stops_within_s) as process:
        yield process


@contextmanager
def background_program(
    arguments: Sequence[str], *, environment: Mapping[str, str], output: IO[bytes] | None, stops_within_s: float
) -> Iterator[subprocess.Popen[bytes]]:
    """Start `headrace ARGUMENTS`; at the end it gets SIGTERM, and SIGKILL when it takes longer than it may.

    It does not see this terminal's Ctrl-C. Start it from the main thread, before there are others.

    Args:
        environment: on top of this process's; secrets go here, since anyone can read a command line.
        output: where its stdout and stderr go; None: to ours.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace", *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=_end_with_starter() if sys.platform == "linux" else None,
    )
    try:
        yield process
    finally:
        with no_interrupts():
            process.terminate()
            try:
                process.wait(stops_within_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _end_with_starter() -> Callable[[], None]:
    """What the child runs before exec, so that it is told to stop when its starter dies, however it dies."""
    prctl = ctypes.CDLL(None).prctl

    def run() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return run


@contextmanager
def no_interrupts() -> Iterator[None]:
    """Let a second Ctrl-C not cut the cleaning up short."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
