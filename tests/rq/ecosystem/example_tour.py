"""RQ's own example, as it is, with a worker beside it. `example_tour.py FOLDER`. It asks for the server on port 6379: it gets the test's."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys

import redis

from headrace.contrib.rq import install_as_rq

install_as_rq()

WORK = "import redis, os, sys; sys.path.insert(0, sys.argv[1]); from headrace.contrib.rq import *; Worker(['default'], connection=redis.from_url(os.environ['REDISTOGO_URL'])).work()"


class Ours(redis.Redis):
    """`Redis()` without arguments is the server of the test."""

    def __init__(self, **given: object) -> None:
        if not given:
            given = {"connection_pool": redis.ConnectionPool.from_url(os.environ["REDISTOGO_URL"])}
        super().__init__(**given)


def main(folder: str) -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORK, folder])
    redis.Redis = Ours
    sys.path.insert(0, folder)
    try:
        runpy.run_path(os.path.join(folder, "run_example.py"), run_name="__main__")
    finally:
        worker.terminate()
        worker.wait(30)


if __name__ == "__main__":
    os.environ.setdefault("TERM", "dumb")
    main(sys.argv[1])
