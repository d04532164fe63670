"""A worker that runs what is there and ends; it says whether there was anything. Arguments: a serializer, if any."""

import os
import sys

import redis

from headrace.contrib.rq import Queue, SimpleWorker

serializer = sys.argv[1] if len(sys.argv) > 1 else None
queue = Queue(connection=redis.from_url(os.environ["REDISTOGO_URL"]), serializer=serializer)
print("worked", SimpleWorker([queue]).work(burst=True), flush=True)
