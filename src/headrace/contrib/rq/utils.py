"""`rq.utils`: the small functions of RQ's that other packages import."""

from __future__ import annotations

import builtins
import importlib
import inspect
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.contrib.rq.exceptions import TimeoutFormatError

if TYPE_CHECKING:
    from headrace.contrib.rq.queue import Queue

T = TypeVar("T")
_DURATION = re.compile(r"(-?\d+)\s*([hmsd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_TIMESTAMP = "%Y-%m-%dT%H:%M:%S.%fZ"


def parse_timeout(timeout: int | float | str | None) -> int | None:
    """A duration as RQ takes it: seconds, or '1h', '23m', '10s', '2d'.

    Raises:
        TimeoutFormatError
    """
    if timeout is None or isinstance(timeout, (int, float)):
        return None if timeout is None else int(timeout)
    match = _DURATION.fullmatch(str(timeout).strip().lower())
    if match is None:
        raise TimeoutFormatError(
            f"{timeout!r} is no duration: use seconds, or a text as '1h', '23m', '10s', '2d'"
        ) from None
    return int(match[1]) * _UNITS[match[2]]


def import_attribute(name: str) -> Any:
    """What a dotted path names: a function of a module, or of a class in one; or a builtin.

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
    if hasattr(builtins, name):
        return getattr(builtins, name)
    raise ValueError(f"Invalid attribute name: no module for {name!r}")


def resolve_function_reference(func: Any) -> tuple[Any, str]:
    """What a worker finds a function by: None and its dotted path, or the object a method belongs to and its name.

    Raises:
        TypeError: it cannot be called.
    """
    if isinstance(func, (str, bytes)):
        return None, as_text(func)
    if inspect.ismethod(func):
        return func.__self__, func.__name__
    if inspect.isfunction(func) or inspect.isbuiltin(func):
        return None, f"{func.__module__}.{func.__qualname__}"
    if not inspect.isclass(func) and callable(func):
        return func, "__call__"
    raise TypeError(f"Expected a callable or a string, but got: {func!r:.80}")


def import_worker_class(name: str) -> Any:
    """A class of workers by its path; raises ValueError when it is none."""
    from headrace.contrib.rq.worker import BaseWorker

    return _import_class(name, BaseWorker)


def import_job_class(name: str) -> Any:
    """A class of jobs by its path; raises ValueError when it is none."""
    from headrace.contrib.rq.job import Job

    return _import_class(name, Job)


def import_queue_class(name: str) -> Any:
    """A class of queues by its path; raises ValueError when it is none."""
    from headrace.contrib.rq.queue import Queue

    return _import_class(name, Queue)


def _import_class(name: str, kind: type) -> Any:
    found = import_attribute(name)
    if not isinstance(found, type) or not issubclass(found, kind):
        raise ValueError(f"{name} is no {kind.__name__}")
    return found


def backend_class(holder: Any, default_name: str, override: Any = None) -> Any:
    """The class given, or named by a dotted path; None: the holder's own."""
    if override is None:
        return getattr(holder, default_name)
    return import_attribute(override) if isinstance(override, str) else override


def as_text(v: bytes | str) -> str:
    if isinstance(v, bytes):
        return v.decode()
    if isinstance(v, str):
        return v
    raise ValueError(f"Unknown type {type(v)!r}")


def decode_redis_hash(h: Mapping[Any, Any], *, decode_values: bool = False) -> dict[str, Any]:
    return {as_text(name): as_text(value) if decode_values else value for name, value in h.items()}


def get_call_string(
    func_name: str | None, args: Iterable[Any], kwargs: Mapping[Any, Any], max_length: int | None = None
) -> str | None:
    """A call as people read it; an argument longer than `max_length` is cut."""
    if func_name is None:
        return None
    shown = [truncate_long_string(repr(value), max_length) for value in args]
    named = [f"{name}={truncate_long_string(repr(value), max_length)}" for name, value in kwargs.items()]
    return f"{func_name}({', '.join(shown + sorted(named))})"


def truncate_long_string(data: str, max_length: int | None = None) -> str:
    return data if max_length is None or len(data) <= max_length else f"{data[:max_length]}..."


def now() -> datetime:
    return datetime.now(UTC)


def current_timestamp() -> int:
    return int(now().timestamp())


def utcformat(dt: datetime) -> str:
    return dt.strftime(_TIMESTAMP)


def utcparse(string: str) -> datetime:
    form = _TIMESTAMP if "." in string else _TIMESTAMP.replace(".%f", "")
    return datetime.strptime(string, form).replace(tzinfo=UTC)


def str_to_date(date_str: bytes | str) -> datetime:
    if not date_str:
        raise ValueError("Empty string or bytestring provided")
    return utcparse(as_text(date_str))


def is_nonstring_iterable(obj: Any) -> bool:
    return isinstance(obj, Iterable) and not isinstance(obj, str)


def ensure_job_list(obj: Any) -> list[Any]:
    """Several as a list, and one as a list of one."""
    return list(obj) if is_nonstring_iterable(obj) else [obj]


def compact(lst: Iterable[T | None]) -> list[T]:
    return [item for item in lst if item is not None]


def ceildiv(a: int, b: int) -> int:
    return -(-a // b)


def split_list(a_list: Sequence[T], segment_size: int) -> Generator[Sequence[T]]:
    for first in range(0, len(a_list), segment_size):
        yield a_list[first : first + segment_size]


def parse_names(queues_or_names: Iterable[Queue | str]) -> list[str]:
    return [str(getattr(item, "name", item)) for item in queues_or_names]


def parse_composite_key(composite_key: str) -> tuple[str, str]:
    """The job's id and the execution's, of `job_id:execution_id`."""
    job_id, _, execution_id = composite_key.partition(":")
    return job_id, execution_id


def get_version(connection: Any) -> tuple[int, int, int]:
    """The version of Redis that the server keeps to."""
    told = str(connection.info("server")["redis_version"]).split(".")
    numbers = [int(part) for part in told[:3]] + [0, 0, 0]
    return numbers[0], numbers[1], numbers[2]
