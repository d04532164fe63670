"""`rq.defaults`: RQ's numbers. `RQ_KEY_PREFIX` only names things here; headrace's own prefix is in every key."""

import os
import re

RQ_KEY_PREFIX = os.environ.get("RQ_KEY_PREFIX", "rq")
if not re.fullmatch(r"[A-Za-z0-9_.:{}-]+", RQ_KEY_PREFIX):
    raise ValueError(f"RQ_KEY_PREFIX: {RQ_KEY_PREFIX!r} has other characters than letters, digits and _ . : - {{ }}")

DEFAULT_JOB_CLASS = "headrace.contrib.rq.job.Job"
DEFAULT_QUEUE_CLASS = "headrace.contrib.rq.Queue"
DEFAULT_WORKER_CLASS = "headrace.contrib.rq.Worker"
DEFAULT_SERIALIZER_CLASS = "headrace.contrib.rq.serializers.DefaultSerializer"
DEFAULT_CONNECTION_CLASS = "redis.Redis"
DEFAULT_DEATH_PENALTY_CLASS = "headrace.contrib.rq.timeouts.UnixSignalDeathPenalty"

DEFAULT_RESULT_TTL = 500
"""Seconds that a finished job is kept."""
DEFAULT_FAILURE_TTL = 31_536_000
"""Seconds that a failed job is kept: a year."""
DEFAULT_WORKER_TTL = 420
DEFAULT_JOB_MONITORING_INTERVAL = 30
DEFAULT_MAINTENANCE_TASK_INTERVAL = 600
DEFAULT_SCHEDULER_FALLBACK_PERIOD = 120
DEFAULT_CRON_SCHEDULER_TTL = 120
DEFAULT_CRON_JOB_HISTORY_LIMIT = 1000
DEFAULT_CRON_JOB_HISTORY_TTL = 31_536_000
CALLBACK_TIMEOUT = 60
"""Seconds that a callback may take."""

DEFAULT_LOGGING_DATE_FORMAT = "%H:%M:%S"
DEFAULT_LOGGING_FORMAT = "%(asctime)s %(message)s"
UNSERIALIZABLE_RETURN_VALUE_PAYLOAD = "Unserializable return value"
