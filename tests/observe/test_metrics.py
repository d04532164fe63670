"""What the metrics of all queues say."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace import Headrace
from headrace.core.record import AttemptError, Record, decode, waits_since_ms
from headrace.engine import ops
from headrace.engine.keys import queue_keys
from headrace.observe.metrics import read_snapshot


@pytest.fixture
def app(url: str) -> Iterator[Headrace]:
    with Headrace(url) as found:
        yield found


def record_of(app: Headrace, job_id: str) -> Record:
    look = app.client.run(ops.look(queue_keys("default"), job_id))
    assert look is not None
    return decode(look.record)


def test_a_delay_that_was_asked_for_is_no_wait(app: Headrace) -> None:
    """Else a queue of reminders would always seem an hour behind. A plain job carries nothing for that."""
    later = record_of(app, app.options(delay=3600).enqueue("remind").id)
    assert later.options is not None
    assert 3_600_000 == later.options.starts_at_ms - later.created_at_ms == waits_since_ms(later) - later.created_at_ms
    plain = record_of(app, app.enqueue("remind").id)
    assert (None, plain.created_at_ms) == (plain.options, waits_since_ms(plain))
    plain.errors = [AttemptError(1, "ValueError", "no", at_ms=plain.created_at_ms + 5)]
    assert plain.created_at_ms + 5 == waits_since_ms(plain)


def test_the_oldest_job_tells_the_latency(app: Headrace) -> None:
    """Of a queue that has any; the others are not in it."""
    app.queue("mail").enqueue("mail.send")
    app.options(delay=3600, queue="later").enqueue("remind")
    seen = app.client.run(read_snapshot(app.prefix))
    assert ["later", "mail"] == [counts.name for counts in seen.queues]
    assert ["mail"] == list(seen.oldest_s) and 0 <= seen.oldest_s["mail"] < 60
