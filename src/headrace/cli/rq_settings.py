"""What all of RQ's commands have in common: where the server is, which classes are used, where modules are found.

The server is, in this order: `--url` or $RQ_REDIS_URL; the module of `--config` or $RQ_CONFIG; the variables that RQ reads, $REDIS_URL, or
$REDIS_HOST and its like; $HEADRACE_URL; localhost.
"""

from __future__ import annotations

import importlib
import logging.config
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any

import click

from headrace.contrib.rq.defaults import (
    DEFAULT_CONNECTION_CLASS,
    DEFAULT_JOB_CLASS,
    DEFAULT_QUEUE_CLASS,
    DEFAULT_WORKER_CLASS,
)
from headrace.contrib.rq.settings import connect
from headrace.contrib.rq.utils import import_attribute

_NAMES = ("REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_DB", "REDIS_PASSWORD", "REDIS_SSL")


@dataclass(frozen=True)
class Setup:
    """What a command was told. `settings`: the module of --config, in capitals."""

    connection: Any
    settings: Mapping[str, Any]
    serializer: Any
    worker_class: Any
    job_class: Any
    queue_class: Any

    def queue(self, name: str) -> Any:
        return self.queue_class(name, connection=self.connection, job_class=self.job_class, serializer=self.serializer)

    def queues(self, names: tuple[str, ...]) -> list[Any]:
        """Those, or all there are."""
        if names:
            return [self.queue(name) for name in names]
        found: list[Any] = self.queue_class.all(self.connection, job_class=self.job_class, serializer=self.serializer)
        return found

    def queue_names(self, given: tuple[str, ...]) -> list[str]:
        """For a worker: those, or QUEUES of the settings, or "default"."""
        return list(given or self.settings.get("QUEUES", ["default"]))


def shared(fn: Callable[..., int]) -> Callable[..., int]:
    """A command with RQ's common options, which gets a `Setup` first."""

    def run(
        url: str | None,
        config: str | None,
        worker_class: str,
        job_class: str,
        queue_class: str,
        connection_class: str,
        path: tuple[str, ...],
        serializer: str,
        **others: Any,
    ) -> int:
        sys.path[:0] = [place for place in path if place not in sys.path]
        settings = read_settings(config) if config else {}
        if settings.get("DICT_CONFIG"):
            logging.config.dictConfig(settings["DICT_CONFIG"])
        kind = _import("--connection-class", connection_class)
        try:
            connection = kind.from_url(url) if url else connect(settings or _environment(), kind)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        setup = Setup(
            connection, settings, serializer, _import("--worker-class", worker_class), _import("--job-class", job_class),
            _import("--queue-class", queue_class),
        )  # fmt: skip
        return fn(setup, **others)

    options = [
        click.option("-u", "--url", envvar="RQ_REDIS_URL", show_envvar=True, help="The server."),
        click.option("-c", "--config", envvar="RQ_CONFIG", show_envvar=True, help="A module with RQ's settings."),
        _class_option("-w", "--worker-class", "RQ_WORKER_CLASS", DEFAULT_WORKER_CLASS),
        _class_option("-j", "--job-class", "RQ_JOB_CLASS", DEFAULT_JOB_CLASS),
        _class_option("", "--queue-class", "RQ_QUEUE_CLASS", DEFAULT_QUEUE_CLASS),
        _class_option("", "--connection-class", "RQ_CONNECTION_CLASS", DEFAULT_CONNECTION_CLASS),
        click.option("-P", "--path", multiple=True, default=["."], help="Where the jobs' modules are."),
        click.option("-S", "--serializer", default="pickle", help="pickle, json, or a dotted path."),
    ]
    command = update_wrapper(run, fn)
    for option in reversed(options):
        command = option(command)
    return command


def _class_option(letter: str, name: str, variable: str, default: str) -> Callable[[Any], Any]:
    names = [letter, name] if letter else [name]
    what = name.removeprefix("--").replace("-", " ")
    return click.option(
        *names, envvar=variable, show_envvar=True, default=default, help=f"The dotted path of a {what} of yours."
    )


def _import(option: str, path: str) -> Any:
    """A class by its path; RQ's own paths stand for the classes here."""
    if path.startswith("rq."):
        path = f"headrace.contrib.{path}"
    try:
        return import_attribute(path)
    except (ImportError, ValueError) as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def read_settings(module: str) -> dict[str, Any]:
    """What the module has in capitals."""
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise click.BadParameter(f"{module} cannot be imported: {error}", param_hint="--config") from error
    return {name: value for name, value in vars(found).items() if name.isupper()}


def _environment() -> Mapping[str, Any]:
    if any(name in os.environ for name in _NAMES):
        return os.environ
    return {"REDIS_URL": os.environ.get("HEADRACE_URL", "redis://localhost:6379/0")}
