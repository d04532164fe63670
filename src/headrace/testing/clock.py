"""A clock of its own for a real server: libfaketime under the server's program, so that its own clock path is what is tested."""

from __future__ import annotations

import glob
import os
import shlex
import subprocess
from pathlib import Path

START_S = 5.0
_PLACES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1")


def faketime_library() -> str | None:
    """Where libfaketime is, if it is installed (Debian: apt-get install libfaketime)."""
    return next((path for place in _PLACES for path in glob.glob(place)), None)


def runs_under(library: str, program: str) -> bool:
    """Whether this program can be started under libfaketime: one that is linked to jemalloc's shared library cannot."""
    try:
        asked = subprocess.run(
            [program, "--version"], env={**os.environ, "LD_PRELOAD": library, "FAKETIME": "+0"}, timeout=START_S,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


class MovableClock:
    """How far a server's wall clock is ahead; its monotonic clock is left alone, as by an operator or an NTP daemon.

    Args:
        folder: where its two files are written.
        library: what `faketime_library` found.
        program: the server's.

    Attributes:
        program: run this instead of the server's program: `EmbeddedServer(binary=clock.program)`. It may be started again.
        ahead_s: may be negative.
    """

    def __init__(self, folder: Path, library: str, program: str) -> None:
        self._file = folder / "clock"
        self.ahead_s = 0.0
        self.move_to(0.0)
        wrapper = folder / "server-with-clock"
        settings = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        words = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
        wrapper.write_text(f'#!/bin/sh\nexec env {" ".join(words)} {shlex.quote(program)} "$@"\n')
        wrapper.chmod(0o700)
        self.program = str(wrapper)

    def move_to(self, ahead_s: float) -> None:
        """Jump there. A running server follows when it next reads its clock: at once, while it works."""
        self.ahead_s = ahead_s
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead_s:+.3f}\n")
        os.replace(new, self._file)  # whole: a half-written one would be read as another time
