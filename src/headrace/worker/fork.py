"""A process for each job (or batch), forked from the consumer that claimed it; its outcomes come back through a pipe."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable

import msgspec

from headrace import telemetry
from headrace.engine.ops import Settlement
from headrace.events import ProcessEnd
from headrace.worker.processes import Death, die_with_parent, kill_group
from headrace.worker.runs import AnyRun

_decode = msgspec.msgpack.Decoder(list[Settlement]).decode
_encode = msgspec.msgpack.Encoder().encode


class JobProcessDied(Exception):
    """The job's process ended without an outcome."""

    def __init__(self, death: Death, end: ProcessEnd) -> None:
        super().__init__(str(death))
        self.death = death
        self.end = end


class Forker:
    """Runs jobs in processes of their own. The consumer that uses it has one thread."""

    def __init__(self, call: Callable[[AnyRun], list[Settlement]]) -> None:
        self._call = call
        self._pid = 0

    def on_signal(self) -> None:
        """Pass an interruption on to the job: the board is shared, so it knows what is meant."""
        if self._pid:
            try:
                os.kill(self._pid, signal.SIGUSR2)
            except ProcessLookupError:
                return

    def call(self, run: AnyRun) -> list[Settlement]:
        """Run one job, or a batch.

        Raises:
            JobProcessDied
        """
        reading, writing = os.pipe()
        consumer = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            self._be_the_job(run, writing, consumer)
        os.close(writing)
        self._pid = pid
        try:
            with open(reading, "rb", buffering=0) as pipe:
                data = _read_all(pipe.fileno())
            _, status, usage = os.wait4(pid, 0)
        finally:
            self._pid = 0
            kill_group(pid)
        if not data:
            raise JobProcessDied(Death(pid, status, usage.ru_maxrss), ProcessEnd(pid, status, usage))
        return _decode(data)

    def _be_the_job(self, run: AnyRun, writing: int, consumer: int) -> None:
        code = 70
        try:
            die_with_parent()
            if os.getppid() != consumer:
                os._exit(0)
            os.setpgid(0, 0)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a stop lets the running job finish
            data = _encode(self._call(run))
            view = memoryview(data)
            while view:
                view = view[os.write(writing, view) :]
            if telemetry.outlet is not None:
                telemetry.outlet.flush()
            code = 0
        finally:
            os._exit(code)


def _read_all(fd: int) -> bytes:
    """Until the end. What a job's own children keep open must not make it wait: the whole message is enough."""
    parts: list[bytes] = []
    while True:
        select.select([fd], [], [])
        part = os.read(fd, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
        data = b"".join(parts)
        try:
            _decode(data)
        except msgspec.DecodeError:
            continue
        return data
