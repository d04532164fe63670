"""The app of the scenarios: each run of a job leaves a line in a file, written by one O_APPEND write.

`start ID ATTEMPT PID` and `end ID`, so that a test can count runs, and find whom to kill.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import random
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from headrace import Event, Headrace, JobContext, Retry, RetryIn, crash, current_job

app = Headrace(queues=["high", "default", "low"])
_file = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def write(*words: object) -> None:
    os.write(_file, (" ".join(map(str, words)) + "\n").encode())


def wait(seconds: float) -> None:
    """Sleep that the scenarios' clock tricks cannot stretch."""
    select.select([], [], [], seconds)


if os.environ.get("LEDGER_HOOKS"):

    @app.on_start
    async def begin() -> None:
        write("hook", "start", os.getpid())

    @app.on_stop
    def end() -> None:
        write("hook", "stop", os.getpid())

    @app.middleware
    def around(job: JobContext) -> Iterator[None]:
        write("around", job.id, "in")
        yield
        write("around", job.id, "out")

    @app.on("job.succeeded")
    def tell(event: Event) -> None:
        write("event", event.name, event.job_id)


@app.task
def work(number: int, seconds: float = 0.0) -> int:
    """Take some time; tell start and end."""
    write("start", number, current_job().attempt, os.getpid())
    if crash.IS_ON:
        crash.at("run.mid")
    if seconds:
        wait(seconds)
    write("end", number)
    return number


@app.task
def waits_for(number: int, path: str) -> int:
    """Go on when that file is there."""
    write("start", number, current_job().attempt, os.getpid())
    while not os.path.exists(path):
        wait(0.01)
    write("end", number)
    return number


_eaten: list[bytes] = []


@app.task
def eats(number: int, megabytes: int) -> int:
    """Memory that is never given back."""
    _eaten.append(os.urandom(1 << 20) * megabytes)
    return work(number)


@app.task
async def ais_called() -> str:
    await asyncio.sleep(0)
    return current_job().id


@app.task
def is_called() -> str:
    return current_job().id


@app.task
async def awork(number: int, seconds: float = 0.0) -> int:
    write("start", number, current_job().attempt, os.getpid())
    await asyncio.sleep(seconds)
    write("end", number)
    return number


@app.task
def yields(number: int) -> Iterator[int]:
    write("start", number, current_job().attempt, os.getpid())
    yield number
    yield number + 1
    write("end", number)


@app.task
def wrecks(number: int, kind: str) -> int:
    """Leaves its process in another state than it found it."""
    write("start", number, current_job().attempt, os.getpid())
    if kind == "changes folder":
        os.chdir("/")
    elif kind == "masks":
        os.umask(0o777)
    elif kind == "takes signals" and threading.current_thread() is threading.main_thread():
        for number_ in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number_, signal.SIG_IGN)
    elif kind == "sets timeouts":
        socket.setdefaulttimeout(0.000001)
    elif kind == "seeds":
        random.seed(1)
    elif kind == "closes files":
        os.closerange(3, 256)
    write("end", number)
    return number


@app.task
def talks(number: int) -> int:
    """Writes to its output, plainly and by logging."""
    with suppress(OSError):
        print("x" * 100_000, flush=True)
    logging.getLogger("talks").warning("y" * 100_000)
    return number


_gate = asyncio.Event()


@app.task
async def astands(number: int) -> int:
    """Stands until the file `open` is beside the ledger; all runs in one process go on in the same turn of the loop."""
    write("start", number, current_job().attempt, os.getpid())
    while not _gate.is_set():
        if (Path(os.environ["LEDGER"]).parent / "open").exists():
            _gate.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(_gate.wait(), 0.01)
    write("end", number)
    return number


@app.task
def tells(number: int) -> int:
    """Report on the way."""
    write("start", number, current_job().attempt, os.getpid())
    current_job().log("begun")
    current_job().save(number)
    current_job().progress(1.0, "done")
    if os.environ.get("HEADRACE_CRASH", "").startswith("progress"):  # it goes out while the job runs, or not at all
        while not Path(os.environ["HEADRACE_CRASH_ONCE"]).exists():
            select.select([], [], [], 0.005)
    write("end", number)
    return number


@app.task
def fenced(number: str) -> str:
    """Tell under which fence it runs, in which process, and when."""
    job = current_job()
    write("fenced", number, job.queue, job.fence, os.getpid(), time.monotonic_ns())
    wait(0.002)
    return number


@app.task
def poison(number: int) -> None:
    """Take the process with it."""
    write("start", number, current_job().attempt, os.getpid())
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def segfault(number: int) -> None:
    write("start", number, current_job().attempt, os.getpid())
    ctypes.string_at(0)


@app.task
def quits(number: int) -> None:
    """End the process politely: that is a crash all the same."""
    write("start", number, current_job().attempt, os.getpid())
    os._exit(0)


@app.task(retry=Retry(3, delay=0.05))
def fails_twice(number: int) -> int:
    attempt = current_job().attempt
    write("start", number, attempt, os.getpid())
    if attempt < 3:
        raise ValueError(f"attempt {attempt}")
    return attempt


@app.task(retry=Retry([0.05, 0.05]))
def always_fails(number: int) -> None:
    write("start", number, current_job().attempt, os.getpid())
    raise KeyError("never")


@app.task
def asks_again(number: int) -> str:
    """Wants to be run again, once."""
    if current_job().attempt == 1:
        raise RetryIn(0.05, "come back")
    return f"attempt {current_job().attempt}"


@app.task(timeout=0.3)
def too_long(number: int) -> str:
    """Runs into its timeout, and can tell."""
    write("start", number, current_job().attempt, os.getpid())
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        wait(0.01)
    return "not stopped"


@app.task(timeout=0.3)
async def atoo_long(number: int) -> str:
    write("start", number, current_job().attempt, os.getpid())
    await asyncio.sleep(20)
    return "not stopped"


@app.task(timeout=0.3)
def holds_the_gil(number: int) -> None:
    """A sum that takes hours, in C, with the GIL held and no look at signals."""
    write("start", number, current_job().attempt, os.getpid())
    sum(range(10**12))


@app.task
def reports(number: int) -> str:
    """Tells how far it is until it is cancelled."""
    job = current_job()
    write("start", number, job.attempt, os.getpid())
    for step in range(2_000):
        if job.is_cancelled:
            write("cancelled", number)
            return "stopped by itself"
        job.progress(step / 2_000, f"step {step}")
        wait(0.01)
    return "ran to its end"


@app.task
def leaves_a_child(number: int) -> int:
    """Starts a process that outlives the job."""
    child = subprocess.Popen(["sleep", "1000"])
    write("child", number, child.pid)
    return child.pid


@app.task
def returns_a_lambda(number: int) -> object:
    return lambda: number


@app.task
def exits(number: int) -> None:
    raise SystemExit(3)


@app.task(result_ttl=0)
def noop(number: int) -> None:
    """Nothing at all."""
