"""What a worker of this layer serves: one headrace task, whose jobs are calls as RQ writes them."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
import traceback
from typing import Any, NoReturn

from headrace.app import Headrace
from headrace.context import current_job
from headrace.contrib.rq.connections import MAX_PAYLOAD_BYTES, connection_to
from headrace.contrib.rq.defaults import CALLBACK_TIMEOUT
from headrace.contrib.rq.exceptions import DeserializationError
from headrace.contrib.rq.job import Job, JobStatus, Retry, get_current_job
from headrace.contrib.rq.repeat import Repeat
from headrace.contrib.rq.serializers import pack, resolve_serializer, unpack
from headrace.contrib.rq.terms import (
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

logger = logging.getLogger("headrace.contrib.rq")


def new_app(url: str | None = None) -> Headrace:
    """An app that knows the layer's task."""
    app = Headrace(url, max_payload_bytes=MAX_PAYLOAD_BYTES, name="rq")
    app.task(name=TASK)(run)
    return app


def run(call: bytes, func_name: str, meta: bytes, terms: dict[str, Any] | None = None) -> bytes:
    """One call: find the function, call it, and give what it returned, serialized."""
    serializer = resolve_serializer(os.environ.get(SERIALIZER_VARIABLE))
    name, instance, args, kwargs, hooks = unpack(serializer, call)
    if name != func_name:
        raise DeserializationError(f"the job says {func_name}, and its arguments are those of {name}")
    said = read_terms(terms)
    try:
        function = import_attribute(name) if instance is None else getattr(instance, name)
        result = function(*args, **kwargs)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        if isinstance(result, Retry):
            _run_again(said, result)
        data = pack(serializer, result)
    except RetryIn:
        raise
    except JobCancelled:
        _tell(hooks, "on_stopped")
        raise
    except Exception as error:
        _tell(hooks, "on_failure", type(error), error, error.__traceback__)
        if said.repeat_times is not None:
            _retry_repeating(said, error)
        if said.repeat_times is not None or current_job().attempt > (said.retry_max or 0):
            _send_webhooks(hooks, JobStatus.FAILED, "".join(traceback.format_exception(error)))
        raise
    _tell(hooks, "on_success", result)
    _send_webhooks(hooks, JobStatus.FINISHED, None)
    if said.repeat_times is not None:
        _repeat(said)
    return data


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


def _run_again(said: Terms, wanted: Retry) -> NoReturn:
    """A job may return a Retry, to be run again as that says."""
    returned = current_job().attempt - 1
    text = RETURNED
    if said.repeat_times is not None:
        job = _this_job()
        returned = job.number_of_retries or 0
        text = tell_left(RETURNED, job.retries_left or 0, job.repeats_left or 0)
    if returned >= wanted.max:
        raise MaxRetriesExceeded(f"the job has asked to be run again more than {wanted.max} times")
    raise RetryIn(wanted.delays[returned], text)


def _retry_repeating(said: Terms, error: Exception) -> None:
    """The retries of a job that repeats are counted here: the engine counts runs, whatever they came to."""
    job = _this_job()
    left = job.retries_left or 0
    if left > 0:
        delay = Retry.get_interval((said.retry_max or 0) - left, said.retry_intervals)
        text = f"{type(error).__name__}: {error}"
        raise RetryIn(delay, tell_left(text, left - 1, job.repeats_left or 0)) from error


def _repeat(said: Terms) -> None:
    job = _this_job()
    left = job.repeats_left or 0
    if left > 0:
        delay = Repeat.get_interval((said.repeat_times or 0) - left, said.repeat_intervals or [0])
        raise RetryIn(delay, tell_left(REPEATS, job.retries_left or 0, left - 1))


_connection: tuple[int, Any] | None = None


def worker_connection() -> Any:
    """A connection to the server of the worker that this code runs in: one for each process."""
    global _connection
    if _connection is None or _connection[0] != os.getpid():
        _connection = os.getpid(), connection_to(app.server_config.url)
    return _connection[1]


app = new_app()
