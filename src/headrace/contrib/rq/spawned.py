"""What a fresh interpreter of a SpawnWorker imports: `app`, which knows a worker as its parent described it (not in RQ).

The description comes in the environment of a process that only this user can read, and is pickled: its classes are found by their paths.
"""

from __future__ import annotations

import base64
import logging
import os
import pickle

from headrace.app import Headrace
from headrace.contrib.rq import runner
from headrace.contrib.rq.connections import connection_to
from headrace.contrib.rq.logutils import setup_loghandlers
from headrace.contrib.rq.terms import SPAWNED_VARIABLE


def _unpacked(text: str) -> Headrace:
    kind, url, queues, told, log = pickle.loads(base64.b64decode(text))
    for name, level in log:
        setup_loghandlers(level or None, name=name)
    logging.getLogger("headrace.job").setLevel(logging.CRITICAL)
    return runner.serve(kind(queues, connection=connection_to(url), **told))


app = _unpacked(os.environ[SPAWNED_VARIABLE]) if SPAWNED_VARIABLE in os.environ else runner.app
