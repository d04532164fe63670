"""What a worker of this layer serves: one headrace task, whose jobs are calls as RQ writes them."""

from __future__ import annotations

import logging
import os
import threading
import traceback
from typing import Any, Protocol

from headrace.app import Headrace
from headrace.context import current_job
from headrace.contrib.rq.alias import install_as_rq, is_wanted
from headrace.contrib.rq.connections import MAX_PAYLOAD_BYTES, connection_to
from headrace.contrib.rq.defaults import CALLBACK_TIMEOUT, DEFAULT_JOB_CLASS, DEFAULT_RESULT_TTL
from headrace.contrib.rq.exceptions import DeserializationError
from headrace.contrib.rq.job import Call, Job, JobStatus, Retry, get_current_job
from headrace.contrib.rq.repeat import Repeat
from headrace.contrib.rq.serializers import Serializer, pack, resolve_serializer, unpack
from headrace.contrib.rq.terms import (
    FOREVER_S,
    JOB_CLASS_VARIABLE,
    REPEATS,
    RETURNED,
    SERIALIZER_VARIABLE,
    TASK,
    MaxRetriesExceeded,
    Terms,
    read_terms,
    tell_left,
)
from headrace.contrib.rq.timeouts import TimerDeathPenalty, UnixSignalDeathPenalty
from headrace.contrib.rq.utils import import_attribute
from headrace.errors import JobCancelled, RetryIn
from headrace.events import Event, EventName

logger = logging.getLogger("headrace.contrib.rq")


class Serving(Protocol):
    """What runs the jobs of this process: an RQ Worker, which was there before it was forked."""

    serializer: Serializer
    job_class: Any
    default_result_ttl: int

    def run_attempt(self, attempt: Attempt) -> bytes: ...

    def lost(self, event: Event) -> None: ...


_serving: Serving | None = None


def new_app(url: str | None = None, result_ttl: int = DEFAULT_RESULT_TTL) -> Headrace:
    """An app that knows the layer's task. `result_ttl`: of jobs that do not say."""
    found = Headrace(url, max_payload_bytes=MAX_PAYLOAD_BYTES, name="rq")
    found.task(name=TASK, result_ttl=FOREVER_S if result_ttl < 0 else result_ttl)(run)
    return found


def serve(worker: Serving) -> Headrace:
    """The app of this worker, whose jobs go through its methods."""
    global _serving, app
    _serving, app = worker, new_app(None, worker.default_result_ttl)
    app.on(EventName.JOB_LOST, worker.lost)
    return app


def serializer() -> Serializer:
    """What the jobs that run here are written with."""
    return resolve_serializer(os.environ.get(SERIALIZER_VARIABLE)) if _serving is None else _serving.serializer


def job_class() -> Any:
    """What `get_current_job` gives here."""
    return (
        import_attribute(os.environ.get(JOB_CLASS_VARIABLE) or DEFAULT_JOB_CLASS)
        if _serving is None
        else _serving.job_class
    )


def run(call: bytes, func_name: str, meta: bytes, terms: dict[str, Any] | None = None) -> bytes:
    """One call: find the function, call it, and give what it returned, serialized."""
    attempt = Attempt(call, func_name, read_terms(terms))
    return attempt.run() if _serving is None else _serving.run_attempt(attempt)


class Attempt:
    """One run of one job: what is called, what is told at its end, and what then becomes of it.

    `perform`, then `give` or `raised`, then `outcome`: an RQ Worker's methods are called between them.
    """

    def __init__(self, call: bytes, func_name: str, said: Terms) -> None:
        self._call = call
        self._func_name = func_name
        self._said = said
        self._hooks: dict[str, Any] = {}
        self._data: bytes | None = None
        self._end: BaseException | None = None
        self.retry: Retry | None = None
        """What the job returned to be run again."""

    def run(self) -> bytes:
        """All of it, where no RQ Worker is."""
        job = _this_job()
        try:
            self.give(self.perform(job))
        except BaseException as error:
            self.raised(error)
        return self.outcome()

    @property
    def has_ended(self) -> bool:
        return self._data is not None or self._end is not None

    def perform(self, job: Job) -> Any:
        """Call the function.

        Raises:
            DeserializationError: the call cannot be read, or is not what it says.
        """
        found = Call(*unpack(serializer(), self._call))
        if found.name != self._func_name:
            raise DeserializationError(f"the job says {self._func_name}, and its arguments are those of {found.name}")
        self._hooks = found.hooks
        job._call = found
        return job.perform()

    def give(self, returned: Any) -> None:
        """The function has returned: tell who wants to know.

        Raises:
            MaxRetriesExceeded: it has returned a Retry too often.
            Exception: it returned what cannot be serialized.
        """
        if isinstance(returned, Retry):
            self._end = _run_again(self._said, returned)
            self.retry = returned
            return
        self._data = pack(serializer(), returned)
        _tell(self._hooks, "on_success", returned)
        _send_webhooks(self._hooks, JobStatus.FINISHED, None)
        if self._said.repeat_times is not None:
            self._end = _repeat(self._said)
            if self._end is not None:
                _this_job().keep_result(self._data)

    def raised(self, error: BaseException) -> None:
        """The function, or `give`, has raised: tell who wants to know."""
        self._data, self._end = None, error
        if isinstance(error, RetryIn):
            return
        if isinstance(error, JobCancelled):
            _tell(self._hooks, "on_stopped")
            return
        _tell(self._hooks, "on_failure", type(error), error, error.__traceback__)
        said = self._said
        if said.repeat_times is not None:
            self._end = _retry_repeating(said, error)
        if self._end is error and (said.repeat_times is not None or current_job().attempt > (said.retry_max or 0)):
            _send_webhooks(self._hooks, JobStatus.FAILED, "".join(traceback.format_exception(error)))

    def outcome(self) -> bytes:
        """What it gave, serialized; or raise what fails the job, or has it run again."""
        if self._end is not None:
            raise self._end
        if self._data is None:
            raise RuntimeError("the worker did not run the job: does its execute_job() call that of its base class?")
        return self._data


# Before the outcome is stored: what is told here may be told again if the worker dies just then.


def _tell(hooks: dict[str, Any], word: str, *what: Any) -> None:
    """Call a callback, if there is one. What it raises is logged: the job has ended as it did."""
    found = hooks.get(word)
    if found is None:
        return
    path, seconds = (found, CALLBACK_TIMEOUT) if isinstance(found, str) else found
    is_main = threading.current_thread() is threading.main_thread()
    limited = UnixSignalDeathPenalty if is_main else TimerDeathPenalty
    try:
        job = _this_job()
        with limited(seconds):
            import_attribute(path)(job, job.connection, *what)
    except Exception:
        logger.exception("the callback %s of job %s raised", path, current_job().id)


def _send_webhooks(hooks: dict[str, Any], status: JobStatus, exc_string: str | None) -> None:
    if any(data["job_status"] == status for data in hooks.get("webhooks", ())):
        _this_job().send_webhooks(status, exc_string=exc_string)


def _this_job() -> Job:
    job = get_current_job()
    assert job is not None, "only a job's run gets here"
    return job


# What runs again: a job that returned a Retry, and one that repeats.


def _run_again(said: Terms, wanted: Retry) -> RetryIn:
    """A job may return a Retry, to be run again as that says."""
    returned = current_job().attempt - 1
    text = RETURNED
    if said.repeat_times is not None:
        job = _this_job()
        returned = job.number_of_retries or 0
        text = tell_left(RETURNED, job.retries_left or 0, job.repeats_left or 0)
    if returned >= wanted.max:
        raise MaxRetriesExceeded(f"the job has asked to be run again more than {wanted.max} times")
    return RetryIn(wanted.delays[returned], text, at_front=wanted.enqueue_at_front)


def _retry_repeating(said: Terms, error: BaseException) -> BaseException:
    """The retries of a job that repeats are counted here: the engine counts runs, whatever they came to."""
    job = _this_job()
    left = job.retries_left or 0
    if left > 0:
        delay = Retry.get_interval((said.retry_max or 0) - left, said.retry_intervals)
        text = f"{type(error).__name__}: {error}"
        return RetryIn(delay, tell_left(text, left - 1, job.repeats_left or 0), at_front=said.retry_at_front)
    return error


def _repeat(said: Terms) -> RetryIn | None:
    job = _this_job()
    left = job.repeats_left or 0
    if left > 0:
        delay = Repeat.get_interval((said.repeat_times or 0) - left, said.repeat_intervals or [0])
        return RetryIn(delay, tell_left(REPEATS, job.retries_left or 0, left - 1))
    return None


_connection: tuple[int, Any] | None = None


def worker_connection() -> Any:
    """A connection to the server of the worker that this code runs in: one for each process."""
    global _connection
    if _connection is None or _connection[0] != os.getpid():
        _connection = os.getpid(), connection_to(app.server_config.url)
    return _connection[1]


if is_wanted():
    install_as_rq()  # before a job's module is imported
app = new_app()
