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
import redis

from headrace.contrib.rq.defaults import (
    DEFAULT_CONNECTION_CLASS,
    DEFAULT_JOB_CLASS,
    DEFAULT_QUEUE_CLASS,
    DEFAULT_WORKER_CLASS,
)
from headrace.contrib.rq.utils import import_attribute

_YES, _NO = ("y", "yes", "t", "true"), ("n", "no", "f", "false", "")
_NAMES = ("REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_DB", "REDIS_PASSWORD", "REDIS_SSL")
_SSL = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_ca_data", "ssl_keyfile", "ssl_certfile")


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
        connection = kind.from_url(url) if url else connect(settings or _environment(), kind)
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


def connect(settings: Mapping[str, Any], kind: Any = redis.Redis) -> Any:
    """A client of the server that RQ's settings tell of: REDIS_URL, or SENTINEL, or REDIS_HOST and its like."""
    if settings.get("REDIS_URL") is not None:
        return kind.from_url(settings["REDIS_URL"])
    if settings.get("SENTINEL") is not None:
        return _sentinel(settings["SENTINEL"])
    options = {name: settings.get(f"REDIS_{name.upper()}") for name in _SSL}
    return kind(
        host=settings.get("REDIS_HOST", "localhost"),
        port=int(settings.get("REDIS_PORT", 6379)),
        db=int(settings.get("REDIS_DB", 0)),
        password=settings.get("REDIS_PASSWORD"),
        ssl=_is_yes(settings.get("REDIS_SSL", False)),
        **{name: value for name, value in options.items() if value is not None},
    )


def _is_yes(given: Any) -> bool:
    if isinstance(given, str) and given.lower() not in (*_YES, *_NO):
        raise click.UsageError(f"REDIS_SSL: expected True or False, got {given!r}")
    return given.lower() in _YES if isinstance(given, str) else bool(given)


def _sentinel(told: Mapping[str, Any]) -> Any:
    options = {name: told.get(name.upper()) for name in ("username", "password", "socket_timeout")}
    options |= {"db": told.get("DB", 0), "ssl": told.get("SSL", False), **told.get("CONNECTION_KWARGS", {})}
    instances = told.get("INSTANCES", [("localhost", 26379)])
    make: Any = redis.Sentinel
    sentinel = make(instances, sentinel_kwargs=told.get("SENTINEL_KWARGS", {}), **options)
    return sentinel.master_for(told.get("MASTER_NAME", "mymaster"))
