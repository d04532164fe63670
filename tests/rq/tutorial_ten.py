"""The tutorial's ten workers: a process each."""

import multiprocessing
import os

import redis

from headrace.contrib.rq import Queue, Worker

conn = redis.from_url(os.environ["REDISTOGO_URL"])
queues = [Queue(name, connection=conn) for name in ("high", "default", "low")]


def start_worker() -> None:
    Worker(queues, connection=conn).work()


if __name__ == "__main__":
    procs = []
    for _ in range(10):
        proc = multiprocessing.Process(target=start_worker)
        procs.append(proc)
        proc.start()
    print("pids", *(proc.pid for proc in procs), flush=True)
    for proc in procs:
        proc.join()
