"""Cron jobs as `headrace rq cron` reads them."""

import rq_jobs

from headrace.contrib.rq import cron

cron.register(rq_jobs.note, "default", args=(5,), interval=3600, name="five")
cron.register(rq_jobs.note, "default", args=(6,), cron="0 4 1 1 *", job_timeout=30, meta={"who": "cron"})
