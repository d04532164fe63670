"""`rq.exceptions`: RQ's exception types, and how this layer says that it has not got something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn


class NoRedisConnectionException(TypeError):  # noqa: N818, RUF100 - RQ's name
    """No connection was given, and none was pushed. (RQ 1's name; what RQ 2 raises then is a TypeError.)"""


class NoSuchJobError(Exception):
    """No such job: it never was, was deleted, or is no longer kept."""


class NoSuchGroupError(Exception):
    """No group of that name has a job."""


class DeserializationError(Exception):
    """Stored arguments or results cannot be read; or their signature is wrong."""


class InvalidJobDependency(Exception):
    """A job cannot wait for that."""


class DuplicateJobError(Exception):
    """A job of that id is there and has not ended."""


class InvalidJobOperation(Exception):
    """That cannot be done to a job in this state."""


class InvalidJobOperationError(InvalidJobOperation):
    """As InvalidJobOperation; RQ has both names."""


class DequeueTimeout(Exception):  # noqa: N818, RUF100 - RQ's name
    """No job came in time. Nothing here raises it: workers take jobs by themselves."""


class ShutDownImminentException(BaseException):  # noqa: N818, RUF100 - RQ's name
    """A worker stops by force. Nothing here raises it: a job that is stopped so is run again."""

    def __init__(self, msg: str, extra_info: Any) -> None:
        self.extra_info = extra_info
        super().__init__(msg)


class TimeoutFormatError(Exception):
    """A duration is neither a number of seconds nor a text as '1h', '23m' or '10s'."""


class AbandonedJobError(Exception):
    """A job's worker died. Nothing here raises it: such a job is run again."""


class SchedulerNotFound(Exception):  # noqa: N818, RUF100 - RQ's name
    """No scheduler has that name."""


class DuplicateSchedulerError(Exception):
    """A scheduler has that name already."""


class StopRequested(Exception):  # noqa: N818, RUF100 - RQ's name
    """A worker was told to stop."""


def not_offered(name: str, instead: str = "") -> NoReturn:
    """Say that RQ has this and the layer does not.

    Raises:
        NotImplementedError
    """
    raise NotImplementedError(f"headrace.contrib.rq has no {name}{': ' + instead if instead else ''}")


def missing(name: str, instead: str) -> Callable[..., NoReturn]:
    """A name of RQ's that is there, and says that it is not offered as it is called."""

    def called(*args: Any, **kwargs: Any) -> NoReturn:
        not_offered(name, instead)

    called.__name__ = called.__qualname__ = name.rpartition(".")[2]
    called.__doc__ = f"Not offered: {instead}."
    return called
