"""RQ's exception types, and how errors of headrace become them."""

from __future__ import annotations

from typing import NoReturn


class NoRedisConnectionException(Exception):  # noqa: N818, RUF100 - RQ's name
    """No connection was given, and none was pushed."""


class NoSuchJobError(Exception):
    """No such job: it never was, was deleted, or is no longer kept."""


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


class TimeoutFormatError(Exception):
    """A duration is neither a number of seconds nor a text as '1h', '23m' or '10s'."""


def not_offered(name: str, instead: str = "") -> NoReturn:
    """Say that RQ has this and the layer does not.

    Raises:
        NotImplementedError
    """
    raise NotImplementedError(f"headrace.contrib.rq has no {name}{': ' + instead if instead else ''}")
