"""The demo's app: one task, which fetches a page and counts its words. What the worker imports."""

from __future__ import annotations

import os
import urllib.request

from headrace import Headrace, current_job
from headrace.demo.pages import count_words

QUEUES = ("high", "default", "low")
TOKEN_VARIABLE, PREFIX_VARIABLE = "HEADRACE_DEMO_TOKEN", "HEADRACE_DEMO_PREFIX"

app = Headrace(prefix=os.environ.get(PREFIX_VARIABLE, "hr"), queues=QUEUES)


@app.task(timeout=60, result_ttl=3600)
def count_words_at_url(url: str) -> int:
    """How many words the page at this URL has."""
    # The site notes who asks, so that the demo knows what ran, what ran again, and which process to kill.
    headers = {
        "X-Demo-Token": os.environ.get(TOKEN_VARIABLE, ""),
        "X-Demo-Process": str(os.getpid()),
        "X-Demo-Job": current_job().id,
    }
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return count_words(answer.read().decode("utf8"))
