"""`rq.decorators`: a function that enqueues itself with `.delay(...)` or `.enqueue(...)`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from headrace.contrib.rq.callbacks import Callback
from headrace.contrib.rq.job import Job, Retry
from headrace.contrib.rq.queue import Queue
from headrace.contrib.rq.webhook import Webhook


class job:  # noqa: N801, RUF100 - RQ's name
    """`@job("low", connection=conn, timeout=60)`; the function gets `.delay` and `.enqueue`, which store a call of it.

    A call of these takes `depends_on`, `job_id` and `at_front` out of its keyword arguments.
    """

    queue_class = Queue

    def __init__(
        self,
        queue: Queue | str,
        connection: Any = None,
        timeout: int | str | None = None,
        result_ttl: int | None = None,
        ttl: int | None = None,
        queue_class: type[Queue] | None = None,
        depends_on: list[Any] | None = None,
        at_front: bool = False,
        meta: dict[Any, Any] | None = None,
        description: str | None = None,
        failure_ttl: int | None = None,
        retry: Retry | None = None,
        on_failure: Callback | Callable[..., Any] | None = None,
        on_success: Callback | Callable[..., Any] | None = None,
        on_stopped: Callback | Callable[..., Any] | None = None,
        webhooks: Sequence[Webhook] | None = None,
    ) -> None:
        self.queue = queue
        self.queue_class = queue_class or Queue
        self.connection = connection
        self.depends_on = depends_on
        self.at_front = at_front
        self._said: dict[str, Any] = {
            "timeout": timeout, "result_ttl": result_ttl, "ttl": ttl, "meta": meta, "description": description,
            "failure_ttl": failure_ttl, "retry": retry, "on_failure": on_failure, "on_success": on_success,
            "on_stopped": on_stopped, "webhooks": webhooks,
        }  # fmt: skip

    def __call__(self, f: Callable[..., Any]) -> Any:
        @functools.wraps(f)
        def delay(*args: Any, **kwargs: Any) -> Job:
            queue = self.queue_class(self.queue, self.connection) if isinstance(self.queue, str) else self.queue
            depends_on = kwargs.pop("depends_on", None) or self.depends_on
            job_id = kwargs.pop("job_id", None)
            at_front = kwargs.pop("at_front", None)
            return queue.enqueue_call(
                f, args, kwargs, depends_on=depends_on, job_id=job_id,
                at_front=self.at_front if at_front is None else at_front, **self._said,
            )  # fmt: skip

        f.delay = f.enqueue = delay  # type: ignore[attr-defined]
        return f
