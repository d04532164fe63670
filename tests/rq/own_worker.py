"""A program with classes, handlers and jobs of its own, which only a fork of it knows. Arguments: what work() and Worker take, as JSON."""

import json
import os
import sys

import redis

from headrace.contrib.rq import Queue, Worker
from headrace.contrib.rq.job import Job
from headrace.contrib.rq.worker import BaseWorker

connection = redis.from_url(os.environ["REDISTOGO_URL"])
options = json.loads(sys.argv[1])
made = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
told: list[str] = []


def tell(*words: object) -> None:
    print("told", *words, flush=True)


class OwnJob(Job):
    def perform(self):
        tell("perform", self.func_name)
        return super().perform()


class OwnWorker(Worker):
    job_class = OwnJob

    def execute_job(self, job, queue):
        tell("execute", type(job).__name__, queue.name, self.is_horse)
        super().execute_job(job, queue)

    def perform_job(self, job, queue, execution):
        assert self.execution is execution and execution.job_id == job.id == os.environ["RQ_JOB_ID"]
        done = super().perform_job(job, queue, execution)
        tell("performed", done, self.is_horse, os.environ["RQ_WORKER_ID"], len(told))
        return done

    def handle_job_success(self, job, *rest):
        tell("success", job.get_status(refresh=False).value)
        raise RuntimeError("what a worker's method raises at the end changes nothing")

    def handle_job_failure(self, job, queue, started_job_registry=None, exc_string="", execution=None):
        tell("failure", exc_string.splitlines()[-1])


def first(job, kind, value, trace):
    tell("first", job.func_name, kind.__name__, trace is not None)


def second(job, *exc_info):
    tell("second")
    return False


def third(job, *exc_info):
    tell("third")


def killed(job, pid, status, usage):
    tell("killed", job.id, pid > 0, status, usage.ru_maxrss > 0)


def wrapped(method):
    """As programs that watch RQ do it: by a method of theirs in the place of RQ's."""

    def call(self, job, *rest):
        tell("wrapped", method.__name__, job.id == rest[-1].job_id if method.__name__ == "perform_job" else "")
        return method(self, job, *rest)

    return call


BaseWorker.perform_job = wrapped(BaseWorker.perform_job)
BaseWorker.handle_exception = wrapped(BaseWorker.handle_exception)

if __name__ == "__main__":
    told.append("a program's own memory")
    queues = [Queue(name, connection=connection) for name in made.pop("queues", ["default"])]
    worker = OwnWorker(
        queues, connection=connection, exception_handlers=[first, second, third],
        work_horse_killed_handler=killed, **made,
    )  # fmt: skip
    print("worked", worker.work(**options), flush=True)
