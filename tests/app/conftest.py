"""An app on a real server, and a consumer of one job for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from headrace import Headrace
from headrace.core import outcome
from headrace.core.names import type_names
from headrace.core.record import decode, encode
from headrace.engine import ops
from headrace.engine.keys import queue_keys
from headrace.wire import decode_call, encode_result

Run = Callable[..., str]


@pytest.fixture
def app(url: str) -> Iterator[Headrace]:
    with Headrace(url, allow=["jobs_of_the_tests"]) as found:
        yield found


@pytest.fixture
def run_one(app: Headrace) -> Run:
    """Claim one job, run it (or let it end as given) and settle it; gives the kind of its outcome."""

    def run(queue: str = "default", end: outcome.End | None = None) -> str:
        keys = [queue_keys(queue, app.prefix)]
        app.client.run(ops.open_session(keys, "test", 10_000, split=False))
        claim = app.client.run(ops.claim(keys, "test", 1, split=False)).claims[0]
        record = decode(claim.record)
        task = app.find_task(record.task)
        now_ms = time.time_ns() // 1_000_000
        if end is None and task is None:
            end = outcome.UnknownTask(record.task)
        elif end is None and task is not None:
            args, kwargs = decode_call(record.payload, task)
            try:
                end = outcome.Succeeded(*encode_result(task.fn(*args, **kwargs), app.max_payload_bytes))
            except Exception as error:
                told = outcome.describe_exception(error, record.attempt + 1, now_ms)
                end = outcome.Raised(type_names(type(error)), told)
        assert end is not None
        options = record.options
        retry = options.retry if options and options.retry else task.retry if task else None
        ttl = app.result_ttl_ms if task is None else task.result_ttl_ms
        if options and options.result_ttl_ms is not None:
            ttl = options.result_ttl_ms
        found = outcome.decide(record, end, retry=retry, result_ttl_ms=ttl, now_ms=now_ms, random=lambda: 0.0)
        new = b"" if found.kind == "l" else encode(found.record)
        kind = ops.Kind(found.kind)
        settled = ops.Settlement(claim.queue, claim.id, kind, new, found.delay_ms, found.keep_ms, claim.is_suspect)
        assert app.client.run(ops.settle(keys, "test", [settled], split=False)).lost == []
        return found.kind

    return run
