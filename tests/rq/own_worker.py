"""A program with functions of its own, which only a fork of it knows; its worker ends by itself."""

import json
import os
import sys

import redis

from headrace.contrib.rq import Queue, Worker

connection = redis.from_url(os.environ["REDISTOGO_URL"])
options = json.loads(sys.argv[1])

if __name__ == "__main__":
    print("worked", Worker([Queue(connection=connection)], connection=connection).work(**options), flush=True)
