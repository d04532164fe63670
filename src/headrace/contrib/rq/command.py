"""`rq.command`: tell a worker to stop, to kill what it runs, or to stop one job. A worker hears it with its next beat, within 5 s."""

from __future__ import annotations

import logging
from typing import Any

from headrace.contrib.rq import worker_registration
from headrace.contrib.rq.connections import app_of
from headrace.contrib.rq.defaults import RQ_KEY_PREFIX
from headrace.contrib.rq.exceptions import InvalidJobOperation, missing
from headrace.contrib.rq.executions import Execution
from headrace.contrib.rq.job import Job, JobStatus
from headrace.engine import admin

logger = logging.getLogger("rq.worker")
PUBSUB_CHANNEL_TEMPLATE = f"{RQ_KEY_PREFIX}:pubsub:%s"
_COMMANDS = {"shutdown": "stop", "kill-horse": "kill"}


def send_command(connection: Any, worker_name: str, command: str, **kwargs: Any) -> None:
    """Leave "shutdown" or "kill-horse" for a worker; or stop a job: "stop-job" with `job_id`, "stop-execution".

    That no worker has this name is logged, as in RQ, where nobody would hear it.

    Raises:
        ValueError: RQ has no such command.
    """
    if command == "stop-job":
        send_stop_job_command(connection, kwargs["job_id"])
    elif command == "stop-execution":
        send_stop_execution_command(connection, kwargs["job_id"], kwargs["execution_id"])
    elif command in _COMMANDS:
        app = app_of(connection)
        seen = worker_registration.find(connection, worker_name)
        if seen is None or not app.client.run(admin.send_command(app.prefix, seen.id, _COMMANDS[command])):
            logger.warning("no worker %s hears the command %s", worker_name, command)
    else:
        raise ValueError(f"unknown command {command!r}: there are shutdown, kill-horse, stop-job, stop-execution")


def send_shutdown_command(connection: Any, worker_name: str) -> None:
    """Let a worker finish what it runs, and end."""
    send_command(connection, worker_name, "shutdown")


def send_kill_horse_command(connection: Any, worker_name: str) -> None:
    """Kill what a worker runs: the job has failed, or is tried again as its Retry says."""
    send_command(connection, worker_name, "kill-horse")


def send_stop_job_command(connection: Any, job_id: str, serializer: Any = None) -> None:
    """Stop a running job, within a second: it is interrupted, and killed when it goes on for 10 s.

    Raises:
        NoSuchJobError: there is no such job.
        InvalidJobOperation: it does not run.
    """
    job = Job.fetch(job_id, connection, serializer)
    if job.get_status(refresh=False) is not JobStatus.STARTED:
        raise InvalidJobOperation(f"Job is not currently executing: {job_id}")
    job.handle.cancel()


def send_stop_execution_command(connection: Any, job_id: str, execution_id: str) -> None:
    """Stop this run of a job.

    Raises:
        InvalidJobOperation: it does not go on.
    """
    try:
        Execution.fetch(execution_id, job_id, connection)
    except ValueError as error:
        raise InvalidJobOperation("Execution is not running") from error
    send_stop_job_command(connection, job_id)


handle_command = missing("command.handle_command", "a supervisor takes commands by itself")
parse_payload = missing("command.parse_payload", "a supervisor takes commands by itself")
