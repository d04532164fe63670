"""A cron scheduler as a program. Argument: its file."""

import os
import sys

import redis

from headrace.contrib.rq.cron import CronScheduler

if __name__ == "__main__":
    scheduler = CronScheduler(redis.from_url(os.environ["REDISTOGO_URL"]), name="clock")
    scheduler.load_config_from_file(sys.argv[1])
    scheduler.start()
