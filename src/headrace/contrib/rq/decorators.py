"""`rq.decorators`: a function that enqueues itself with `.delay(...)`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from headrace.contrib.rq.exceptions import not_offered
from headrace.contrib.rq.job import Job
from headrace.contrib.rq.queue import Queue


class job:  # noqa: N801, RUF100 - RQ's name
    """`@job("low", connection=conn, timeout=60)`; the function gets `.delay` and `.enqueue`, which store a call of it."""

    def __init__(
        self,
        queue: Queue | str,
        connection: Any = None,
        timeout: int | str | None = None,
        result_ttl: int | None = None,
        ttl: int | None = None,
        queue_class: Any = None,
        **options: Any,
    ) -> None:
        if queue_class is not None:
            not_offered("@job(queue_class=)")
        self._queue = queue
        self._connection = connection
        self._timeout = timeout
        self._options = {"result_ttl": result_ttl, "ttl": ttl, **options}

    def __call__(self, f: Callable[..., Any]) -> Any:
        @functools.wraps(f)
        def delay(*args: Any, **kwargs: Any) -> Job:
            options = dict(self._options)
            for name in ("depends_on", "job_id", "at_front"):
                if name in kwargs:
                    options[name] = kwargs.pop(name)
            queue = self._queue if isinstance(self._queue, Queue) else Queue(self._queue, self._connection)
            return queue.enqueue_call(f, args, kwargs, self._timeout, **options)

        f.delay = f.enqueue = delay  # type: ignore[attr-defined]
        return f
