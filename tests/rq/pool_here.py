"""A pool of two workers. Argument: "burst", or nothing."""

import os
import sys

import redis

from headrace.contrib.rq.worker_pool import WorkerPool

if __name__ == "__main__":
    pool = WorkerPool(["default"], redis.from_url(os.environ["REDISTOGO_URL"]), num_workers=2)
    pool.start(burst="burst" in sys.argv)
    print("ended", pool.status.name, pool.number_of_active_workers, flush=True)
