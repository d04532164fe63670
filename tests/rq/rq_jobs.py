"""What the workers of these tests run."""

from __future__ import annotations

import os
import select
import signal
import sys

from headrace.contrib.rq import Retry, get_current_job
from headrace.contrib.rq.job import Job


def note(number: int, seconds: float = 0.0) -> int:
    """Write that this number has run, and give it back."""
    if seconds:
        select.select([], [], [], seconds)
    fd = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND)
    os.write(fd, f"{number}\n".encode())
    os.close(fd)
    return number


def divide(one: int, other: int) -> float:
    return one / other


def same(value: object = None, **kwargs: object) -> object:
    return kwargs or value


async def later(value: int) -> int:
    return value + 1


def about_me() -> tuple[str, object]:
    job = get_current_job()
    assert job is not None
    return job.id, job.meta.get("who")


def ask_again(enqueue_at_front: bool = False) -> Retry:
    return Retry(1, enqueue_at_front=enqueue_at_front)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Counter:
    def __init__(self, start: int) -> None:
        self.start = start

    def plus(self, number: int) -> int:
        return self.start + number

    def __call__(self, number: int) -> int:
        return self.start * number


def tell_success(job: Job, connection: object, result: int) -> None:
    assert job.args[0] == result
    note(result + 100)
    raise RuntimeError("a callback that raises")


def tell_failure(job: Job, connection: object, kind: type, value: object, trace: object) -> None:
    assert kind is ZeroDivisionError and trace is not None
    note(1000 + job.args[0])


def until_stopped(number: int) -> None:
    """Runs until somebody stops it."""
    note(number)
    while True:
        select.select([], [], [], 0.05)


def tell_stopped(job: Job, connection: object) -> None:
    assert connection is job.connection
    note(2000 + job.args[0])


def too_slow(job: Job, connection: object, result: object) -> None:
    select.select([], [], [], 30)


def fail_once(number: int) -> int:
    """Fails in its first run."""
    with open(os.environ["LEDGER"]) as ledger:
        is_first = f"{number}\n" not in ledger.readlines()
    note(number)
    return 1 // (0 if is_first else 1)


def tell_of_me(step: str) -> object:
    """Writes where it runs into its own meta, and gives what stands there then."""
    job = get_current_job()
    assert job is not None and job is get_current_job()
    job.meta["step"] = step
    job.save_meta()
    again = Job.fetch(job.id, job.connection)
    return again.meta


def note_result(job: Job, connection: object, result: set[int]) -> None:
    assert job.is_finished
    note(len(result))


def about_meta() -> str:
    job = get_current_job()
    assert job is not None
    job.meta["n"] += 1
    job.save_meta()
    return job.id


class MyJob(Job):
    """A job with a name of its own."""

    @property
    def title(self) -> str:
        return f"{self.origin}: {self.func_name}"


def handle(job: Job, kind: type, value: object, trace: object) -> None:
    """An exception handler."""
    note(3000 + job.args[0])


def whereabouts() -> tuple[int, str, str, str]:
    """This process, what RQ tells it, and the program it is."""
    main = sys.modules["__main__"].__spec__
    return os.getpid(), os.environ["RQ_WORKER_ID"], os.environ["RQ_JOB_ID"], main.name if main else ""
