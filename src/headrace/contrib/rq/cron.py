"""`rq.cron`: functions that run by the clock: each becomes a schedule of headrace's, which this process declares while it runs.

So schedules of one name are one, whoever declares them: several schedulers make a job once, and a restart makes none again.
While no scheduler runs they make no jobs, a minute after the last one has ended.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import msgspec

from headrace.contrib.rq.connections import app_of, resolve_connection
from headrace.contrib.rq.defaults import (
    DEFAULT_LOGGING_DATE_FORMAT,
    DEFAULT_LOGGING_FORMAT,
    DEFAULT_RESULT_TTL,
    RQ_KEY_PREFIX,
)
from headrace.contrib.rq.exceptions import DuplicateSchedulerError, SchedulerNotFound
from headrace.contrib.rq.logutils import setup_loghandlers
from headrace.contrib.rq.queue import Queue
from headrace.contrib.rq.stopping import Stop
from headrace.contrib.rq.utils import now, resolve_function_reference, utcformat, utcparse
from headrace.contrib.rq.webhook import Webhook
from headrace.contrib.rq.worker_registration import is_alive
from headrace.core import schedule as core
from headrace.core.cron import check_zone
from headrace.core.record import State
from headrace.engine import admin, ops, schedules
from headrace.engine.keys import check_queue_name, queue_keys
from headrace.engine.schedules import Declared
from headrace.errors import ScheduleNotFound, ServerError, UsageError
from headrace.schedules import spec_of
from headrace.worker.config import new_worker_id
from headrace.worker.schedules import RENEW_EVERY_S

POOL = "cron"
"""By this a scheduler is known on the list of workers."""
LOOK_EVERY_S = 1.0
BEAT_EVERY_S = 5.0
_ANY = frozenset(State)


def get_cron_job_history_key(name: str) -> str:
    return f"{RQ_KEY_PREFIX}:cron_job:{name}:jobs"


def get_cron_job_ids(name: str, connection: Any, start: int = 0, end: int = -1) -> list[str]:
    """The ids of the jobs that the clock has made of this cron job, the newest first: of those that are still kept."""
    app = app_of(connection)
    try:
        row = app.client.run(schedules.find(app.prefix, _schedule_name(name)))
    except ScheduleNotFound:
        return []
    made = (f"cron:{row.name}:", f"run:{row.name}:")
    every = [one.id for one in Queue(row.queue.name, connection).rows_in(_ANY) if one.id.startswith(made)]
    every.sort(key=lambda job_id: job_id.rpartition(":")[2], reverse=True)
    return every[start:] if end == -1 else every[start : end + 1]


class CronJob:
    """A function and its times: each `interval` seconds, or as a cron expression says, in local time.

    Raises:
        ValueError: neither or both of interval and cron; no function; a wrong expression.
        TypeError: webhooks are none.
    """

    def __init__(
        self,
        queue_name: str,
        func: Callable[..., Any] | None = None,
        func_name: str | None = None,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        interval: int | None = None,
        cron: str | None = None,
        job_timeout: int | None = None,
        result_ttl: int = DEFAULT_RESULT_TTL,
        ttl: int | None = None,
        failure_ttl: int | None = None,
        meta: dict[str, Any] | None = None,
        webhooks: Sequence[Webhook] | None = None,
        name: str = "",
    ) -> None:
        if bool(interval) == bool(cron):
            raise ValueError("Must specify either interval or cron parameter" + (", not both" if interval else ""))
        if func is None and not func_name:
            raise ValueError("Either func or func_name must be provided")
        if webhooks and not all(isinstance(one, Webhook) for one in webhooks):
            raise TypeError("webhooks must be a sequence of Webhook instances")
        self.func = func
        self.func_name = func_name or "" if func is None else resolve_function_reference(func)[1]
        self.name = name or self.func_name
        self.args = tuple(args or ())
        self.kwargs = dict(kwargs or {})
        self.interval = interval
        self.cron = cron
        self.queue_name = check_queue_name(queue_name)
        options: dict[str, Any] = {
            "job_timeout": job_timeout, "result_ttl": result_ttl, "ttl": ttl, "failure_ttl": failure_ttl, "meta": meta,
            "webhooks": list(webhooks) if webhooks else None,
        }  # fmt: skip
        self.job_options = {word: value for word, value in options.items() if value is not None}
        self.schedule_name = _schedule_name(self.name)
        self._times = self._read_times()
        self.latest_enqueue_time: datetime | None = None
        self.next_enqueue_time: datetime | None = self.get_next_enqueue_time() if cron else None

    def _read_times(self) -> dict[str, Any]:
        # What an interval missed is made up for once; what a cron expression missed is not, as in RQ.
        given = {"every": self.interval, "catch_up": "one"}
        if self.cron:
            given = {"cron": self.cron, "tz": local_zone(), "catch_up": "skip"}
        try:
            return core.check_schedule(given, f"cron job {self.name}")
        except UsageError as error:
            raise ValueError(f"cron job {self.name}: {error}") from error

    @property
    def job_history_key(self) -> str:
        return get_cron_job_history_key(self.name)

    def declared(self, connection: Any) -> Declared:
        """As a schedule of headrace's (not in RQ)."""
        queue = Queue(self.queue_name, connection)
        options = dict(self.job_options)
        job = queue.create_job(
            self._target, self.args, self.kwargs, timeout=options.pop("job_timeout", None), **options
        )
        return Declared(self.schedule_name, self.queue_name, spec_of(queue.call_of(job, at_front=False), self._times))

    @property
    def _target(self) -> Callable[..., Any] | str:
        return self.func_name if self.func is None else self.func

    def enqueue(self, connection: Any) -> Any:
        """Run it now, whatever its times say; returns the job.

        Raises:
            ValueError: it was read from another process, and has no function.
        """
        if self.func is None:
            raise ValueError("CronJob has no function to enqueue: it was read from another process")
        queue = Queue(self.queue_name, connection)
        return queue.enqueue(self.func, args=self.args, kwargs=self.kwargs, **self.job_options)

    def get_job_ids(self, connection: Any, start: int = 0, end: int = -1) -> list[str]:
        return get_cron_job_ids(self.name, connection, start, end)

    def get_next_enqueue_time(self) -> datetime:
        """The next of its times. Those of an interval count from 1970, so that all schedulers agree on them."""
        at_ms = core.next_tick(core.Spec(**self._times), int(time.time() * 1000))
        return datetime.fromtimestamp(at_ms / 1000, UTC)

    def should_run(self) -> bool:
        """Whether its time has come; an interval that has never run has."""
        if self.latest_enqueue_time is None and not self.cron:
            return True
        return self.next_enqueue_time is not None and now() >= self.next_enqueue_time

    def set_enqueue_time(self, time: datetime) -> None:
        self.latest_enqueue_time, self.next_enqueue_time = time, self.get_next_enqueue_time()

    def to_dict(self) -> dict[str, Any]:
        """What others may know of it."""
        options = dict(self.job_options)
        if "meta" in options:
            options["meta"] = _as_json(options["meta"])
        if "webhooks" in options:
            options["webhooks"] = json.dumps([webhook.to_dict() for webhook in options["webhooks"]])
        return {
            "func_name": self.func_name,
            "name": self.name,
            "queue_name": self.queue_name,
            "args": _as_json(self.args) if self.args else None,
            "kwargs": _as_json(self.kwargs) if self.kwargs else None,
            "interval": self.interval,
            "cron": self.cron,
            "latest_enqueue_time": utcformat(self.latest_enqueue_time) if self.latest_enqueue_time else None,
            "next_enqueue_time": utcformat(self.next_enqueue_time) if self.next_enqueue_time else None,
            **options,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """What `to_dict` told, to look at: it has no function."""
        webhooks = data.get("webhooks")
        job = cls(
            data["queue_name"], func_name=data["func_name"], name=data.get("name", ""), args=_from_json(data.get("args")),
            kwargs=_from_json(data.get("kwargs")), interval=data.get("interval"), cron=data.get("cron"),
            job_timeout=data.get("job_timeout"), result_ttl=data.get("result_ttl", DEFAULT_RESULT_TTL),
            ttl=data.get("ttl"), failure_ttl=data.get("failure_ttl"), meta=_from_json(data.get("meta")),
            webhooks=[Webhook.from_dict(one) for one in json.loads(webhooks)] if webhooks else None,
        )  # fmt: skip
        latest, following = data.get("latest_enqueue_time"), data.get("next_enqueue_time")
        job.latest_enqueue_time = utcparse(latest) if latest else None
        job.next_enqueue_time = utcparse(following) if following else None
        return job


class CronScheduler:
    """Declares its cron jobs and makes their jobs, until SIGINT or SIGTERM."""

    def __init__(self, connection: Any = None, logging_level: str | int = logging.INFO, name: str = "") -> None:
        self.connection = resolve_connection(connection)
        self.hostname = socket.gethostname()
        self.pid = os.getpid()
        self.name = name or f"{self.hostname}:{self.pid}:{uuid4().hex[:6]}"
        self.config_file = ""
        self.created_at: datetime = now()
        self.log = logging.getLogger("rq.cron")
        setup_loghandlers(logging_level, DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT, "rq.cron")
        self._cron_jobs: list[CronJob] = []
        self._told: dict[str, Declared] = {}
        self._renew_at_s = 0.0
        self._id = new_worker_id(self.name)
        self._taken = ""
        self._stop: Stop | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CronScheduler) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def key(self) -> str:
        return f"{RQ_KEY_PREFIX}:cron_scheduler:{self.name}"

    # What it declares

    def register(
        self,
        func: Callable[..., Any],
        queue_name: str,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        interval: int | None = None,
        cron: str | None = None,
        job_timeout: int | None = None,
        result_ttl: int = DEFAULT_RESULT_TTL,
        ttl: int | None = None,
        failure_ttl: int | None = None,
        meta: dict[str, Any] | None = None,
        webhooks: Sequence[Webhook] | None = None,
        name: str = "",
    ) -> CronJob:
        """Run a function at these times."""
        job = CronJob(
            queue_name, func, None, args, kwargs, interval, cron, job_timeout, result_ttl, ttl, failure_ttl, meta,
            webhooks, name,
        )  # fmt: skip
        taken = {one.schedule_name for one in self._cron_jobs}
        base, count = job.schedule_name, 1
        while job.schedule_name in taken:  # of one function, say, with other arguments
            count += 1
            job.schedule_name = f"{base[:96]}-{count}"
        self._cron_jobs.append(job)
        when = f"every {interval} seconds" if interval else f"with cron schedule {cron!r}"
        self.log.info("Registered %r to run on %s %s", job.func_name, queue_name, when)
        return job

    def get_jobs(self) -> list[CronJob]:
        return self._cron_jobs

    def load_config_from_file(self, config_path: str) -> None:
        """Import a module, by its path or its dotted name, whose calls of `cron.register` say what runs.

        Raises:
            FileNotFoundError, ImportError: there is none, or it cannot be imported.
            ValueError, TypeError: what it registers is wrong.
        """
        _registered.clear()
        _import_config(config_path)
        self.config_file = config_path
        found = _take_registered()
        for data in found:
            self.register(**data)
        self.log.info("Successfully registered %d cron jobs from %r", len(found), config_path)

    # What it does

    def enqueue_jobs(self) -> list[CronJob]:
        """Make the jobs whose time has come, if nobody else has; returns the cron jobs they are of."""
        made = self._declare()
        app = app_of(self.connection)
        for name in sorted({job.queue_name for job in self._cron_jobs}):
            is_more = True
            while is_more:
                fired, is_more = app.client.run(schedules.fire_due(queue_keys(name, app.prefix), self._told))
                made |= {one.name for one in fired if one.ids}
        found = [job for job in self._cron_jobs if job.schedule_name in made]
        for job in found:
            job.set_enqueue_time(now())
            self.log.info("Enqueued job %s to queue %s", job.func_name, job.queue_name)
        return found

    def _declare(self) -> set[str]:
        """Tell the server what is declared here, now and then again; the names of those that were run since they are new."""
        client, prefix = app_of(self.connection).client, app_of(self.connection).prefix
        wanted = (
            {job.schedule_name: job.declared(self.connection) for job in self._cron_jobs}
            if self._is_new
            else self._told
        )
        made: set[str] = set()
        if self._is_new:
            for job in self._cron_jobs:
                problem = client.run(schedules.declare(prefix, wanted[job.schedule_name], is_start=True))
                if problem:
                    raise ValueError(f"cron job {job.name}: {problem}")
                row = client.run(schedules.find(prefix, job.schedule_name, job.queue_name))
                if job.interval and not row.entry.fired:
                    client.run(schedules.run_now(row))
                    made.add(job.schedule_name)
            self._told = wanted
            self._renew_at_s = time.monotonic() + RENEW_EVERY_S
        elif time.monotonic() >= self._renew_at_s:
            for declared in client.run(schedules.renew(prefix, list(wanted.values()))):
                client.run(schedules.declare(prefix, declared, is_start=False))
            self._renew_at_s = time.monotonic() + RENEW_EVERY_S
        return made

    @property
    def _is_new(self) -> bool:
        return {job.schedule_name for job in self._cron_jobs} != set(self._told)

    def calculate_sleep_interval(self) -> float:
        """Seconds until the next of its times; at most 60."""
        times = [job.next_enqueue_time for job in self._cron_jobs if job.next_enqueue_time]
        left_s = (min(times) - now()).total_seconds() if times else 60.0
        return min(60.0, max(0.0, left_s))

    def start(self) -> None:
        """Work until SIGINT, SIGTERM or `headrace workers stop`. A server that is away is waited for.

        Raises:
            DuplicateSchedulerError: a scheduler of this name runs.
        """
        self._stop = Stop()
        self._stop.listen()
        self.pid = os.getpid()
        self.register_birth()
        beat_at_s = 0.0
        try:
            while not self._stop.is_requested:
                try:
                    if time.monotonic() >= beat_at_s:
                        self.heartbeat()
                        beat_at_s = time.monotonic() + BEAT_EVERY_S
                    self.enqueue_jobs()
                except ServerError as error:
                    self.log.warning("CronScheduler %s: %s; trying again", self.name, error)
                self._stop.wait(min(LOOK_EVERY_S, self.calculate_sleep_interval() or LOOK_EVERY_S))
        finally:
            self.register_death()
            self._stop.close()
        self.log.info("CronScheduler %s: stopped", self.name)

    # How it shows itself

    def register_birth(self) -> None:
        """Show it on the list of workers.

        Raises:
            DuplicateSchedulerError
        """
        if any(one.info.get("name") == self.name and is_alive(one) for one in _seen(self.connection)):
            raise DuplicateSchedulerError(f"CronScheduler {self.name!r} is already registered")
        self.heartbeat()

    def register_death(self, pipeline: Any = None) -> None:
        try:
            app = app_of(self.connection)
            app.client.run(ops.leave(app.prefix, self._id))
        except ServerError as error:
            self.log.warning("CronScheduler %s: %s", self.name, error)

    def heartbeat(self) -> None:
        """Show that it lives, and hear what an operator asks for."""
        app = app_of(self.connection)
        told = app.client.run(ops.beat(app.prefix, self._id, msgspec.msgpack.encode(self._info()), self._taken))
        self._taken = told or ""
        if told == "stop" and self._stop is not None:
            self._stop.request()

    def _info(self) -> dict[str, Any]:
        return {
            "name": self.name, "host": self.hostname, "pid": self.pid, "pool": POOL, "queues": [], "state": "running",
            "children": 0, "slots": 0, "running": 0, "jobs": [], "succeeded": 0, "failed": 0, "run_ms": 0,
            "started_at_ms": int(self.created_at.timestamp() * 1000), "config_file": self.config_file,
            "cron_jobs": json.dumps([job.to_dict() for job in self._cron_jobs]),
        }  # fmt: skip

    @property
    def last_heartbeat(self) -> datetime | None:
        """When it showed itself last; None: it is not there."""
        found = [one for one in _seen(self.connection) if one.info.get("name") == self.name]
        return datetime.fromtimestamp(found[0].beat_at_ms / 1000, UTC) if found else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "hostname": self.hostname, "pid": str(self.pid), "name": self.name, "created_at": utcformat(self.created_at),
            "config_file": self.config_file, "cron_jobs": json.dumps([job.to_dict() for job in self._cron_jobs]),
        }  # fmt: skip

    @classmethod
    def all(cls, connection: Any, cleanup: bool = True) -> list[Self]:
        """The schedulers that run."""
        return [cls._of(one, connection) for one in _seen(connection)]

    @classmethod
    def fetch(cls, name: str, connection: Any) -> Self:
        """The scheduler of that name; raises SchedulerNotFound."""
        for one in _seen(connection):
            if one.info.get("name") == name:
                return cls._of(one, connection)
        raise SchedulerNotFound(f"CronScheduler with name {name!r} not found")

    @classmethod
    def _of(cls, seen: admin.Worker, connection: Any) -> Self:
        found = cls(connection, name=str(seen.info["name"]))
        found.hostname, found.pid = seen.info["host"], seen.info["pid"]
        found.config_file = seen.info.get("config_file", "")
        found.created_at = datetime.fromtimestamp(seen.info["started_at_ms"] / 1000, UTC)
        found._cron_jobs = [CronJob.from_dict(data) for data in json.loads(seen.info.get("cron_jobs", "[]"))]
        return found


# What a file of cron jobs says

_registered: list[dict[str, Any]] = []


def register(
    func: Callable[..., Any],
    queue_name: str,
    args: tuple[Any, ...] | None = None,
    kwargs: dict[str, Any] | None = None,
    interval: int | None = None,
    cron: str | None = None,
    job_timeout: int | None = None,
    result_ttl: int = DEFAULT_RESULT_TTL,
    ttl: int | None = None,
    failure_ttl: int | None = None,
    meta: dict[str, Any] | None = None,
    webhooks: Sequence[Webhook] | None = None,
    name: str = "",
) -> dict[str, Any]:
    """In a file that `headrace rq cron` is given: run a function each `interval` seconds, or as `cron` says."""
    data = {
        "func": func, "queue_name": queue_name, "args": args, "kwargs": kwargs, "interval": interval, "cron": cron,
        "job_timeout": job_timeout, "result_ttl": result_ttl, "ttl": ttl, "failure_ttl": failure_ttl, "meta": meta,
        "webhooks": webhooks, "name": name,
    }  # fmt: skip
    _registered.append(data)
    return data


def create_cron(connection: Any) -> CronScheduler:
    """A scheduler of what was registered in this process."""
    scheduler = CronScheduler(connection)
    for data in _take_registered():
        scheduler.register(**data)
    return scheduler


def _take_registered() -> list[dict[str, Any]]:
    found = list(_registered)
    _registered.clear()
    return found


def _import_config(place: str) -> None:
    if not place.endswith(".py") and os.sep not in place:
        _import_anew(place, place)
        return
    path = Path(place).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no file of cron jobs at {path}")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    _import_anew(path.stem, place)


def _import_anew(name: str, place: str) -> None:
    """A module that was imported before must register what it registers again."""
    try:
        known = sys.modules.get(name)
        if known is None:
            importlib.import_module(name)
        else:
            importlib.reload(known)
    except ImportError as error:
        raise ImportError(f"the cron jobs of {place!r} cannot be imported: {error}") from error


def local_zone() -> str:
    """The name of this machine's time zone; UTC where it has none."""
    path = os.path.realpath(os.environ.get("TZ", "").removeprefix(":") or "/etc/localtime")
    name = os.environ.get("TZ", "").removeprefix(":") or path.partition("/zoneinfo/")[2]
    try:
        return check_zone(name) if name else "UTC"
    except UsageError:
        return "UTC"


def _schedule_name(name: str) -> str:
    """As a schedule may be called."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]", "-", name)[:100]
    return cleaned if re.match(r"[A-Za-z0-9_]", cleaned) else f"_{cleaned[:99]}"


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value)
    except TypeError:
        return json.dumps(repr(value))


def _from_json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _seen(connection: Any) -> list[admin.Worker]:
    app = app_of(connection)
    return [one for one in app.client.run(admin.list_workers(app.prefix)) if one.info.get("pool") == POOL]
