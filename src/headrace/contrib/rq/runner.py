"""What a worker of this layer serves: one headrace task, whose jobs are calls as RQ writes them."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import os
from typing import Any

from headrace.app import Headrace
from headrace.context import current_job
from headrace.contrib.rq.connections import MAX_PAYLOAD_BYTES
from headrace.contrib.rq.exceptions import DeserializationError
from headrace.contrib.rq.serializers import pack, resolve_serializer, unpack
from headrace.errors import RetryIn

logger = logging.getLogger("headrace.contrib.rq")

TASK = "headrace.rq"
SERIALIZER_VARIABLE = "HEADRACE_RQ_SERIALIZER"


class MaxRetriesExceeded(Exception):  # noqa: N818, RUF100
    """The job returned a Retry more often than that allows."""


def new_app(url: str | None = None) -> Headrace:
    """An app that knows the layer's task."""
    app = Headrace(url, max_payload_bytes=MAX_PAYLOAD_BYTES, name="rq")
    app.task(name=TASK)(run)
    return app


def run(call: bytes, func_name: str, meta: bytes) -> bytes:
    """One call: find the function, call it, and give what it returned, serialized."""
    serializer = resolve_serializer(os.environ.get(SERIALIZER_VARIABLE))
    name, instance, args, kwargs, callbacks = unpack(serializer, call)
    if name != func_name:
        raise DeserializationError(f"the job says {func_name}, and its arguments are those of {name}")
    try:
        function = find_function(name) if instance is None else getattr(instance, name)
        result = function(*args, **kwargs)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        _retry_if_asked(result)
        data = pack(serializer, result)
    except RetryIn:
        raise
    except Exception as error:
        _tell(callbacks.get("on_failure"), type(error), error, error.__traceback__)
        raise
    _tell(callbacks.get("on_success"), result)
    return data


def _tell(path: str | None, *what: Any) -> None:
    """Call a callback, if there is one. What it raises is logged: the job has ended as it did."""
    if path is None:
        return
    from headrace.contrib.rq.job import get_current_job
    from headrace.contrib.rq.worker import worker_connection

    try:
        with worker_connection() as connection:
            find_function(path)(get_current_job(connection), connection, *what)
    except Exception:
        logger.exception("the callback %s of job %s raised", path, current_job().id)


def find_function(name: str) -> Any:
    """What a dotted path names: a function of a module, or of a class in one.

    Raises:
        ValueError: nothing; RQ's type for that.
    """
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:count])
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
                continue
            raise
        for part in parts[count:]:
            if not hasattr(found, part):
                raise ValueError(f"Invalid attribute name: {module_name} has no {'.'.join(parts[count:])}")
            found = getattr(found, part)
        return found
    raise ValueError(f"Invalid attribute name: no module for {name!r}")


def _retry_if_asked(result: Any) -> None:
    """A job may return a Retry, to be run again as that says."""
    from headrace.contrib.rq.job import Retry

    if not isinstance(result, Retry):
        return
    attempt = current_job().attempt
    if attempt > result.max:
        raise MaxRetriesExceeded(f"the job has asked to be run again more than {result.max} times")
    raise RetryIn(result.delays[attempt - 1], "the job returned a Retry")


app = new_app()
