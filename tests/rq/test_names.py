"""RQ's public names, written down here: each is there, with RQ's parameters and defaults, or says that it is not offered."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import pytest

# Class or function, then its parameters as RQ has them. A connection may be left out here, since one may be pushed.
SIGNATURES = """
job.Retry(max, interval=0, enqueue_at_front=False)
job.Retry.get_interval(count, intervals)
job.Dependency(jobs, allow_failure=False, enqueue_at_front=False)
callbacks.Callback(func, timeout=None)
repeat.Repeat(times, interval=0)
repeat.Repeat.get_interval(count, intervals)
webhook.Webhook(url, job_status, *, method='GET', headers=None, timeout=10)
rate_limit.RateLimit(key, concurrency)
decorators.job(queue, connection, timeout=None, result_ttl=None, ttl=None, queue_class=None, depends_on=None, at_front=False, meta=None, description=None, failure_ttl=None, retry=None, on_failure=None, on_success=None, on_stopped=None, webhooks=None)
queue.Queue(name='default', connection=None, default_timeout=None, is_async=True, job_class=None, serializer=None, death_penalty_class=UnixSignalDeathPenalty, **kwargs)
queue.Queue.all(connection, job_class=None, serializer=None, death_penalty_class=None)
queue.Queue.from_queue_key(queue_key, connection, job_class=None, serializer=None, death_penalty_class=None)
queue.Queue.parse_args(f, *args, **kwargs)
queue.Queue.prepare_data(func, args=None, kwargs=None, timeout=None, result_ttl=None, ttl=None, failure_ttl=None, description=None, depends_on=None, job_id=None, at_front=False, meta=None, retry=None, on_success=None, on_failure=None, on_stopped=None, repeat=None, webhooks=None)
queue.Queue.enqueue(self, f, *args, **kwargs)
queue.Queue.enqueue_at(self, datetime, f, *args, **kwargs)
queue.Queue.enqueue_in(self, time_delta, func, *args, **kwargs)
queue.Queue.enqueue_call(self, func, args=None, kwargs=None, timeout=None, result_ttl=None, ttl=None, failure_ttl=None, description=None, depends_on=None, job_id=None, at_front=False, meta=None, retry=None, repeat=None, on_success=None, on_failure=None, on_stopped=None, rate_limit=None, pipeline=None, unique=False, webhooks=None)
queue.Queue.create_job(self, func, args=None, kwargs=None, timeout=None, result_ttl=None, ttl=None, failure_ttl=None, description=None, depends_on=None, job_id=None, meta=None, status=JobStatus.QUEUED, retry=None, repeat=None, *, on_success=None, on_failure=None, on_stopped=None, webhooks=None, group_id=None, rate_limit=None)
queue.Queue.enqueue_job(self, job, pipeline=None, at_front=False, unique=False)
queue.Queue.enqueue_many(self, job_datas, pipeline=None, group_id=None)
queue.Queue.schedule_job(self, job, datetime, pipeline=None, unique=False)
queue.Queue.fetch_job(self, job_id)
queue.Queue.get_job_position(self, job_or_id)
queue.Queue.get_job_ids(self, offset=0, length=-1)
queue.Queue.get_jobs(self, offset=0, length=-1)
queue.Queue.remove(self, job_or_id, pipeline=None)
queue.Queue.empty(self)
queue.Queue.delete(self, delete_jobs=True)
queue.Queue.is_empty(self)
queue.Queue.compact(self)
queue.Queue.get_redis_server_version(self)
queue.Queue.run_sync(self, job)
queue.Queue.run_job(self, job)
job.Job(id=None, connection=None, serializer=None)
job.Job.create(func, args=None, kwargs=None, connection=None, result_ttl=None, ttl=None, status=None, description=None, depends_on=None, timeout=None, retry=None, id=None, origin='', meta=None, failure_ttl=None, serializer=None, group_id=None, *, on_success=None, on_failure=None, on_stopped=None, webhooks=None)
job.Job.exists(job_id, connection)
job.Job.fetch(id, connection=None, serializer=None)
job.Job.fetch_many(job_ids, connection, serializer=None)
job.Job.key_for(job_id)
job.Job.dependents_key_for(job_id)
job.Job.get_status(self, refresh=True)
job.Job.set_status(self, status, pipeline=None)
job.Job.get_meta(self, refresh=True)
job.Job.save_meta(self)
job.Job.save(self, pipeline=None, include_meta=True, include_result=True)
job.Job.refresh(self)
job.Job.to_dict(self, include_meta=True, include_result=True)
job.Job.cancel(self, pipeline=None, enqueue_dependents=False, remove_from_dependencies=False)
job.Job.requeue(self, at_front=False)
job.Job.delete(self, pipeline=None, remove_from_queue=True, delete_dependents=False)
job.Job.delete_dependents(self, pipeline=None)
job.Job.perform(self)
job.Job.cleanup(self, ttl=None, pipeline=None, remove_from_queue=True)
job.Job.return_value(self, refresh=False)
job.Job.latest_result(self, timeout=0)
job.Job.results(self)
job.Job.get_position(self)
job.Job.get_executions(self)
job.Job.get_ttl(self, default_ttl=None)
job.Job.get_result_ttl(self, default_ttl)
job.Job.get_call_string(self)
job.Job.get_retry_interval(self)
job.Job.should_enqueue_at_front(self)
job.Job.dependencies_are_met(self, parent_job=None, pipeline=None, exclude_job_id=None, refresh_job_status=True)
job.Job.fetch_dependencies(self, watch=False, pipeline=None)
job.Job.send_webhooks(self, status, *, exc_string=None)
job.get_current_job(connection=None, job_class=None)
job.cancel_job(job_id, connection, serializer=None, enqueue_dependents=False)
job.requeue_job(job_id, connection, serializer=None)
group.Group(connection, name=None)
group.Group.create(connection, name=None)
group.Group.fetch(name, connection)
group.Group.all(connection)
group.Group.enqueue_many(self, queue, job_datas, pipeline=None)
group.Group.get_jobs(self)
group.Group.delete_job(self, job_id, pipeline=None)
group.Group.cleanup(self)
results.Result.all(job, serializer=None)
results.Result.count(job)
results.Result.fetch_latest(job, serializer=None, timeout=0)
executions.Execution(id, job_id, connection, worker_name='')
executions.ExecutionRegistry(job_id, connection)
executions.ExecutionRegistry.get_executions(self, start=0, end=-1)
registry.BaseRegistry(name='default', connection=None, job_class=None, queue=None, serializer=None, death_penalty_class=None)
registry.BaseRegistry.get_job_count(self, cleanup=True)
registry.BaseRegistry.get_job_ids(self, start=0, end=-1, desc=False, cleanup=True)
registry.BaseRegistry.remove(self, job, pipeline=None, delete_job=False)
registry.BaseRegistry.get_expired_job_ids(self, timestamp=None)
registry.BaseRegistry.get_expiration_time(self, job)
registry.BaseRegistry.requeue(self, job_or_id, at_front=False)
registry.BaseRegistry.get_queue(self)
registry.BaseRegistry.cleanup(self, timestamp=None, exception_handlers=None)
registry.StartedJobRegistry.get_job_and_execution_ids(self, start=0, end=-1, desc=False, cleanup=True)
registry.ScheduledJobRegistry.schedule(self, job, scheduled_datetime, pipeline=None)
registry.ScheduledJobRegistry.get_jobs_to_schedule(self, timestamp=None, chunk_size=1000)
registry.ScheduledJobRegistry.get_scheduled_time(self, job_or_id)
registry.clean_registries(queue, exception_handlers=None)
serializers.resolve_serializer(serializer=None)
timeouts.get_default_death_penalty_class()
logutils.setup_loghandlers(level=None, date_format='%H:%M:%S', log_format='%(asctime)s %(message)s', name='rq.worker')
utils.import_attribute(name)
utils.get_call_string(func_name, args, kwargs, max_length=None)
utils.backend_class(holder, default_name, override=None)
utils.as_text(v)
utils.parse_timeout(timeout)
connections.Connection(connection=None)
connections.push_connection(redis)
connections.pop_connection()
connections.get_current_connection()
connections.resolve_connection(connection=None)
"""

NAMES = {
    "": "Callback Retry cancel_job get_current_job requeue_job Queue RateLimit SimpleWorker SpawnWorker Worker Repeat Webhook "
    "__version__ Connection push_connection pop_connection get_current_connection",
    "queue.Queue": "job_class death_penalty_class DEFAULT_TIMEOUT redis_queue_namespace_prefix redis_queues_keys key count jobs "
    "job_ids is_async scheduler_pid intermediate_queue intermediate_queue_key failed_job_registry started_job_registry "
    "finished_job_registry deferred_job_registry ready_job_registry scheduled_job_registry canceled_job_registry",
    "job.Job": "id key func func_name instance args kwargs data dependency dependency_ids dependent_ids is_finished is_queued "
    "is_failed is_started is_deferred is_canceled is_scheduled is_stopped is_ready_to_enqueue has_rate_limit should_retry "
    "success_callback failure_callback stopped_callback success_callback_timeout failure_callback_timeout "
    "stopped_callback_timeout started_job_registry failed_job_registry finished_job_registry execution_registry exc_info result "
    "webhooks meta",
    "job.JobStatus": "CREATED QUEUED FINISHED FAILED STARTED DEFERRED SCHEDULED STOPPED CANCELED RATE_LIMITED READY_TO_ENQUEUE",
    "results.Result.Type": "SUCCESSFUL FAILED STOPPED RETRIED MAX_RETRIES_EXCEEDED",
    "registry": "StartedJobRegistry FinishedJobRegistry FailedJobRegistry DeferredJobRegistry ReadyJobRegistry "
    "ScheduledJobRegistry CanceledJobRegistry",
    "serializers": "DefaultSerializer PickleSerializer JSONSerializer",
    "timeouts": "JobTimeoutException BaseTimeoutException HorseMonitorTimeoutException UnixSignalDeathPenalty TimerDeathPenalty",
    "exceptions": "NoSuchJobError NoSuchGroupError DeserializationError InvalidJobDependency DuplicateJobError "
    "InvalidJobOperation InvalidJobOperationError DequeueTimeout ShutDownImminentException TimeoutFormatError "
    "AbandonedJobError SchedulerNotFound DuplicateSchedulerError StopRequested",
    "logutils": "ColorizingStreamHandler green yellow blue red",
    "version": "VERSION",
}  # fmt: skip

ATTRIBUTES = (
    "origin created_at enqueued_at started_at ended_at last_heartbeat timeout ttl result_ttl failure_ttl description meta "
    "worker_name retries_left number_of_retries retry_intervals enqueue_at_front_on_retry repeats_left repeat_intervals "
    "allow_dependency_failures enqueue_at_front group_id rate_limit_key rate_limit_concurrency webhooks serializer connection"
)

NOT_OFFERED = {
    "queue.Queue": "push_job_id pop_job_id lpop lmove dequeue_any setup_dependencies enqueue_dependents "
    "move_dependents_to_ready enqueue_ready_jobs_by_queue acquire_maintenance_lock release_maintenance_lock",
    "job.Job": "restore heartbeat register_dependency",
    "registry.StartedJobRegistry": "add add_execution remove_execution remove_executions",
    "registry.FinishedJobRegistry": "add",
    "results.Result": "delete_all",
}

DEFAULTS = {
    "DEFAULT_RESULT_TTL": 500, "DEFAULT_FAILURE_TTL": 31_536_000, "DEFAULT_WORKER_TTL": 420,
    "DEFAULT_JOB_MONITORING_INTERVAL": 30, "DEFAULT_MAINTENANCE_TASK_INTERVAL": 600, "CALLBACK_TIMEOUT": 60,
    "DEFAULT_SCHEDULER_FALLBACK_PERIOD": 120,
}  # fmt: skip


def named(path: str) -> Any:
    module, _, rest = path.partition(".")
    found: Any = importlib.import_module("headrace.contrib.rq" + (f".{module}" if module else ""))
    for name in rest.split(".") if rest else ():
        found = getattr(found, name)
    return found


def told(found: Any) -> str:
    """The parameters of a function or class, without types; of a class or status among the defaults, its name."""
    signature = inspect.signature(found)
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    text = str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    return re.sub(r"<(?:class '[\w.]*\.(\w+)'|([\w.]+): '\w+')>", r"\1\2", text)


def test_each_signature_is_rq_s() -> None:
    """The same parameters, in order, with the same defaults; but for a connection, which may be left out."""
    wrong = {}
    for line in SIGNATURES.strip().splitlines():
        path, bracket, parameters = line.partition("(")
        mine, theirs = told(named(path)), bracket + parameters
        if "connection=None" not in theirs:
            mine = mine.replace("connection=None", "connection")
        if mine != theirs:
            wrong[line] = mine
    assert not wrong


def test_the_other_names_are_there() -> None:
    """Properties, constants, exceptions, statuses, the fields of a job, RQ's default numbers."""
    for path, names in NAMES.items():
        for name in names.split():
            inspect.getattr_static(named(path), name)
    draft = named("job.Job").create("math.sqrt", (4,), connection=object())
    for name in ATTRIBUTES.split():
        getattr(draft, name)
    assert {name: getattr(named("defaults"), name) for name in DEFAULTS} == DEFAULTS


def test_what_is_not_offered_says_what_to_do_instead() -> None:
    """It is there, so that a program gets to the place where it is used; the error names it."""
    for path, names in NOT_OFFERED.items():
        for name in names.split():
            with pytest.raises(NotImplementedError, match=r"headrace\.contrib\.rq has no \S+: \S+"):
                getattr(named(path), name)()
