"""Settings as `headrace rq -c rq_settings_here` reads them."""

import os

REDIS_URL = os.environ["REDISTOGO_URL"]
QUEUES = ["mine"]
NAME = "named"
DICT_CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"short": {"format": "formatted %(message)s"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "short"}},
    "loggers": {"rq.worker": {"level": "INFO", "handlers": ["out"]}},
}
