"""What may be said about a task or a job, and the check of each word of it where it is written."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias, TypedDict

import msgspec

from headrace.core.names import type_name
from headrace.core.record import PRIORITY_MAX, PRIORITY_MIN, JobOptions, RetrySpec
from headrace.core.retry import DELAY_MAX_MS, Retry, duration_ms, retry_spec
from headrace.core.ties import Group, Limit, Ties, Unique, read_group, read_limits, read_unique
from headrace.errors import UsageError

TIMEOUT_DEFAULT_MS = 3_600_000
STREAM_MAX_DEFAULT, STREAM_MAX_MOST = 10_000, 1_000_000
_PARENTS_MAX = 1_000
_SEARCH_MAX = 10
_TAGS_MAX, _TAG_CHARS_MAX, _DESCRIPTION_CHARS_MAX = 20, 100, 1_000

Duration: TypeAlias = "float | timedelta"
Durability: TypeAlias = Literal["memory", "replicated", "fsync"]


class TaskOptions(TypedDict, total=False):
    """What `@app.task(...)` takes. Durations are seconds or a timedelta.

    `timeout` None: no limit (default: 1 hour). `result_ttl` 0: the job is forgotten as it succeeds. `expires`: a job
    that has not started that long after it was enqueued is dropped. `priority`: -100 to 100, higher first.
    `durability`: where a job must be before `enqueue` returns: "memory", "replicated" or "fsync". `unique`: which jobs count
    as the same (True, an argument's name, several, a key with `{argument}`, or a Unique). `limits`: a Limit, or several.
    `group`: jobs of different groups take turns: a name, which may hold `{argument}`, or a Group. `stream_max`: how many of the
    items that a generator yields are kept. `search`: arguments that jobs are looked up by, each with its path: "order_id", "user.id".
    """

    queue: str
    name: str
    retry: int | Retry
    timeout: Duration | None
    result_ttl: Duration
    priority: int
    expires: Duration | None
    durability: Durability
    unique: bool | str | Sequence[str] | Unique | None
    limits: Limit | Sequence[Limit] | None
    group: str | Group | None
    description: str
    tags: Sequence[str]
    stream_max: int
    search: Sequence[str]


class EnqueueOptions(TypedDict, total=False):
    """What `.options(...)` takes, for one job; what is not said is as the task declares.

    `delay` counts from the server's now; `at`, an absolute `expires` and an absolute `deadline` are aware datetimes (a past `at`
    means now). `depends_on`: a Job, or several: it starts when they
    have succeeded, and is cancelled when one of them does not; with `or_failed` it starts also when they have failed.
    `failure_ttl`: how long it is kept if it fails (default: 30 days). `deadline`: by then the job has ended: it does not start later, it is stopped, and so is all that it enqueues.
    """

    queue: str
    delay: Duration
    at: datetime
    priority: int
    at_front: bool
    timeout: Duration | None
    retry: int | Retry
    expires: Duration | datetime | None
    deadline: Duration | datetime | None
    result_ttl: Duration
    failure_ttl: Duration
    job_id: str
    depends_on: Any
    or_failed: bool
    durability: Durability
    unique: bool | str | Sequence[str] | Unique | None
    limits: Limit | Sequence[Limit] | None
    group: str | Group | None
    description: str
    tags: Sequence[str]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Checked options of one call, the task's own included. None: not said; `expires_*` 0: never.

    `ties` is what hangs on its jobs, `job` what of the rest travels in the record.
    """

    queue: str
    priority: int = 0
    delay_ms: int = 0
    at_ms: int = 0
    at_front: bool = False
    expires_in_ms: int = 0
    expires_at_ms: int = 0
    deadline_in_ms: int = 0
    deadline_at_ms: int = 0
    timeout_ms: int | None = None
    retry: RetrySpec | None = None
    result_ttl_ms: int | None = None
    failure_ttl_ms: int | None = None
    job_id: str | None = None
    durability: Durability = "memory"
    description: str | None = None
    tags: list[str] = []
    unique: Unique | None = None
    limits: tuple[Limit, ...] = ()
    group: Group | None = None
    search: tuple[str, ...] = ()
    depends_on: list[tuple[str, str]] = []
    or_failed: bool = False
    ties: Ties | None = None
    job: JobOptions | None = None


def apply_options(plan: Plan, checked: Mapping[str, Any]) -> Plan:
    """A plan with checked options put on top."""
    if not checked:
        return plan
    new = msgspec.structs.replace(plan, **checked)
    has_ties = new.unique is not None or new.group is not None or new.limits
    new = msgspec.structs.replace(new, ties=Ties(new.unique, new.limits, new.group) if has_ties else None)
    if new.group is not None and new.priority:
        raise UsageError("group and priority: give one of them; groups take turns, whatever comes first in each")
    if (
        new.timeout_ms is None
        and new.retry is None
        and new.result_ttl_ms is None
        and new.failure_ttl_ms is None
        and not (new.description or new.tags)
    ):
        return msgspec.structs.replace(new, job=None)
    job = JobOptions(
        timeout_ms=new.timeout_ms,
        retry=new.retry,
        result_ttl_ms=new.result_ttl_ms,
        failure_ttl_ms=new.failure_ttl_ms,
        description=new.description,
        tags=new.tags,
    )
    return msgspec.structs.replace(new, job=job)


def check_enqueue_options(given: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """Options of `.options(...)` as fields of a Plan. The spelling of `queue` and `job_id` is the engine's to check.

    Raises:
        UsageError: naming the option that is unknown or wrong.
    """
    checked = _check(given, _ENQUEUE_CHECKS, ".options()")
    if "delay" in given and "at" in given:
        raise UsageError("delay and at: give one of them")
    if checked.get("at_front") and ("delay" in given or "at" in given):
        raise UsageError("at_front: not for a job that starts later; leave out delay and at")
    if checked.get("at_ms", 0) > now_ms + DELAY_MAX_MS:
        raise UsageError("at: more than 10 years ahead")
    return checked


def check_task_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `@app.task(...)` as fields of a Plan, `name` apart.

    Raises:
        UsageError: naming the option that is unknown or wrong.
    """
    return _check(given, _TASK_CHECKS, "@app.task()")


def check_durability(value: object) -> Durability:
    """Raises UsageError for what is none."""
    found = _DURABILITIES.get(value) if isinstance(value, str) else None
    if found is None:
        raise UsageError(f"durability: expected 'memory', 'replicated' or 'fsync', got {value!r:.40}")
    return found


_DURABILITIES: dict[str, Durability] = {"memory": "memory", "replicated": "replicated", "fsync": "fsync"}


def _check(
    given: Mapping[str, Any], checks: Mapping[str, Callable[[Any], dict[str, Any]]], where: str
) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for name, value in given.items():
        check = checks.get(name)
        if check is None:
            raise UsageError(_unknown(name, checks, where))
        checked.update(check(value))
    return checked


def _unknown(name: str, known: Mapping[str, Any], where: str) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    guess = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(known))}"
    return f"{where} has no option {name!r}; {guess}"


def _wrong(name: str, expected: str, value: object) -> UsageError:
    return UsageError(f"{name}: expected {expected}, got {'None' if value is None else f'a {type_name(type(value))}'}")


def _queue(value: Any) -> dict[str, Any]:
    if not isinstance(value, str):
        raise _wrong("queue", "a queue's name", value)
    return {"queue": value}


def _delay(value: Any) -> dict[str, Any]:
    return {"delay_ms": duration_ms("delay", value), "at_ms": 0}


def _at(value: Any) -> dict[str, Any]:
    return {"at_ms": _instant_ms("at", value), "delay_ms": 0}


def _priority(value: Any) -> dict[str, Any]:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong("priority", "a whole number", value)
    if not PRIORITY_MIN <= value <= PRIORITY_MAX:
        raise UsageError(f"priority: {value} is outside {PRIORITY_MIN} to {PRIORITY_MAX}")
    return {"priority": value}


def _at_front(value: Any) -> dict[str, Any]:
    if not isinstance(value, bool):
        raise _wrong("at_front", "True or False", value)
    return {"at_front": value}


def _timeout(value: Any) -> dict[str, Any]:
    if value is None:
        return {"timeout_ms": 0}
    timeout_ms = duration_ms("timeout", value)
    if timeout_ms == 0:
        raise UsageError("timeout: 0 s leaves no time to run; None means no limit")
    return {"timeout_ms": timeout_ms}


def _retry(value: Any) -> dict[str, Any]:
    return {"retry": retry_spec(value)}


def _expires(value: Any) -> dict[str, Any]:
    if value is None:
        return {"expires_in_ms": 0, "expires_at_ms": 0}
    if isinstance(value, datetime):
        return {"expires_in_ms": 0, "expires_at_ms": _instant_ms("expires", value)}
    expires_in_ms = duration_ms("expires", value)
    if expires_in_ms == 0:
        raise UsageError("expires: after 0 s the job could never start; None means never")
    return {"expires_in_ms": expires_in_ms, "expires_at_ms": 0}


def _deadline(value: Any) -> dict[str, Any]:
    if value is None:
        return {"deadline_in_ms": 0, "deadline_at_ms": 0}
    if isinstance(value, datetime):
        return {"deadline_in_ms": 0, "deadline_at_ms": _instant_ms("deadline", value)}
    deadline_in_ms = duration_ms("deadline", value)
    if deadline_in_ms == 0:
        raise UsageError("deadline: 0 s leaves no time to run; None means none")
    return {"deadline_in_ms": deadline_in_ms, "deadline_at_ms": 0}


def _task_expires(value: Any) -> dict[str, Any]:
    if isinstance(value, datetime):
        raise _wrong("expires", "seconds or a timedelta", value)
    return _expires(value)


def _result_ttl(value: Any) -> dict[str, Any]:
    return {"result_ttl_ms": duration_ms("result_ttl", value)}


def _failure_ttl(value: Any) -> dict[str, Any]:
    return {"failure_ttl_ms": duration_ms("failure_ttl", value)}


def _job_id(value: Any) -> dict[str, Any]:
    if not isinstance(value, str):
        raise _wrong("job_id", "text", value)
    return {"job_id": value}


def _durability(value: Any) -> dict[str, Any]:
    return {"durability": check_durability(value)}


def _description(value: Any) -> dict[str, Any]:
    if not isinstance(value, str):
        raise _wrong("description", "text", value)
    if len(value) > _DESCRIPTION_CHARS_MAX:
        raise UsageError(f"description: {len(value)} characters; at most {_DESCRIPTION_CHARS_MAX}")
    return {"description": _valid_text("description", value)}


def _tags(value: Any) -> dict[str, Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _wrong("tags", "a list of texts", value)
    if len(value) > _TAGS_MAX:
        raise UsageError(f"tags: {len(value)} of them; at most {_TAGS_MAX}")
    for tag in value:
        if not isinstance(tag, str) or not 0 < len(tag) <= _TAG_CHARS_MAX:
            raise UsageError(f"tags: expected texts of 1 to {_TAG_CHARS_MAX} characters, got {tag!r:.60}")
        _valid_text("tags", tag)
    return {"tags": list(value)}


def _valid_text(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{name}: text that is not valid Unicode (a lone surrogate)") from None
    return value


def _instant_ms(name: str, value: Any) -> int:
    if not isinstance(value, datetime):
        raise _wrong(name, "an aware datetime", value)
    if value.utcoffset() is None:
        raise UsageError(f"{name}: a datetime without a time zone; write datetime.now(timezone.utc) or .astimezone()")
    return max(1, round(value.timestamp() * 1000))


def _or_failed(value: Any) -> dict[str, Any]:
    if not isinstance(value, bool):
        raise _wrong("or_failed", "True or False", value)
    return {"or_failed": value}


def _depends_on(value: Any) -> dict[str, Any]:
    found = [value] if hasattr(value, "queue") and hasattr(value, "id") else value
    if isinstance(found, str) or not isinstance(found, Sequence) or not all(hasattr(job, "queue") for job in found):
        raise _wrong("depends_on", "a Job, or a list of them", value)
    if len(found) > _PARENTS_MAX:
        raise UsageError(f"depends_on: {len(found)} jobs; at most {_PARENTS_MAX}: a group in a flow takes more")
    return {"depends_on": [(job.queue, job.id) for job in found]}


def _unique(value: Any) -> dict[str, Any]:
    return {"unique": read_unique(value)}


def _limits(value: Any) -> dict[str, Any]:
    return {"limits": read_limits(value)}


def _group(value: Any) -> dict[str, Any]:
    return {"group": read_group(value)}


def _stream_max(value: Any) -> dict[str, Any]:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= STREAM_MAX_MOST:
        raise _wrong("stream_max", f"a number of items from 1 to {STREAM_MAX_MOST}", value)
    return {"stream_max": value}


def _search(value: Any) -> dict[str, Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _wrong("search", "a list of arguments' names", value)
    if len(value) > _SEARCH_MAX:
        raise UsageError(f"search: {len(value)} of them; at most {_SEARCH_MAX}")
    for path in value:
        if not isinstance(path, str) or not 0 < len(path) <= _TAG_CHARS_MAX or not path.isprintable() or ":" in path:
            raise UsageError(f"search: expected names of arguments, as 'order_id' or 'user.id', got {path!r:.60}")
    return {"search": tuple(value)}


_JOB_CHECKS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "queue": _queue,
    "retry": _retry,
    "timeout": _timeout,
    "result_ttl": _result_ttl,
    "priority": _priority,
    "expires": _task_expires,
    "durability": _durability,
    "unique": _unique,
    "limits": _limits,
    "group": _group,
    "description": _description,
    "tags": _tags,
}
_TASK_CHECKS = {**_JOB_CHECKS, "stream_max": _stream_max, "search": _search}
_ENQUEUE_CHECKS: dict[str, Callable[[Any], dict[str, Any]]] = {
    **_JOB_CHECKS,
    "expires": _expires,
    "deadline": _deadline,
    "delay": _delay,
    "at": _at,
    "at_front": _at_front,
    "job_id": _job_id,
    "failure_ttl": _failure_ttl,
    "depends_on": _depends_on,
    "or_failed": _or_failed,
}
